// Tests of the outbox: batches, chunks, lanes.
#include "causeway/controller/outbox.h"

#include <string>

#include "control.pb.h"
#include "gtest/gtest.h"

namespace causeway::controller {
namespace {

std::shared_ptr<const std::string> Bytes(size_t n, char c = 'x') {
  return std::make_shared<const std::string>(n, c);
}

control::Data Decode(const Outbox::Batch& batch) {
  control::Command command;
  EXPECT_EQ(batch.size(), 1u);
  EXPECT_TRUE(batch.size() == 1 && command.ParseFromString(*batch[0]));
  EXPECT_TRUE(command.has_data());
  return command.data();
}

TEST(Outbox, BatchesUpToItsBoundAndSendsLargeOnesAlone) {
  Outbox outbox({.batch_bytes = 100, .chunk_bytes = 10});
  for (size_t n : {40, 40, 40, 500, 1}) outbox.PushCommand(Bytes(n));
  EXPECT_EQ(outbox.queued_bytes(), 621);
  EXPECT_EQ(outbox.NextForCommands(true).size(), 2u);
  EXPECT_EQ(outbox.NextForCommands(true).size(), 1u);
  EXPECT_EQ(outbox.NextForCommands(true).front()->size(), 500u);
  EXPECT_EQ(outbox.queued_bytes(), 1);
  EXPECT_EQ(outbox.NextForCommands(true).size(), 1u);
  EXPECT_TRUE(outbox.NextForCommands(true).empty());
  EXPECT_TRUE(outbox.empty());
  EXPECT_EQ(outbox.queued_bytes(), 0);
}

TEST(Outbox, CutsTransfersInOrder) {
  Outbox outbox({.batch_bytes = 100, .chunk_bytes = 4});
  outbox.PushData(TransferId(7), absl::Cord("abcdefghij"));
  outbox.PushData(TransferId(8), absl::Cord(""));
  std::string text;
  for (int64_t offset : {0, 4, 8}) {
    const control::Data data = Decode(outbox.NextForBulk());
    EXPECT_EQ(data.transfer(), 7u);
    EXPECT_EQ(data.offset(), offset);
    EXPECT_EQ(data.total(), 10);
    text += data.bytes();
  }
  EXPECT_EQ(text, "abcdefghij");
  const control::Data nothing = Decode(outbox.NextForBulk());
  EXPECT_EQ(nothing.transfer(), 8u);
  EXPECT_EQ(nothing.total(), 0);
  EXPECT_TRUE(outbox.NextForBulk().empty());
  EXPECT_EQ(outbox.queued_bytes(), 0);
}

TEST(Outbox, ErrorsTakeThePlaceOfBytes) {
  Outbox outbox;
  outbox.PushDataError(TransferId(3), absl::CancelledError("the client left"));
  const control::Data data = Decode(outbox.NextForBulk());
  EXPECT_EQ(data.transfer(), 3u);
  EXPECT_EQ(data.error().code(), static_cast<int>(absl::StatusCode::kCancelled));
  EXPECT_EQ(data.error().message(), "the client left");
}

TEST(Outbox, WithoutABulkStreamDataAndCommandsTakeTurns) {
  Outbox outbox({.batch_bytes = 1, .chunk_bytes = 4});
  outbox.PushData(TransferId(7), absl::Cord("abcdefgh"));
  for (int i = 0; i < 3; ++i) outbox.PushCommand(Bytes(1));
  std::string order;
  for (int i = 0; i < 5; ++i) {
    const Outbox::Batch batch = outbox.NextForCommands(false);
    ASSERT_EQ(batch.size(), 1u);
    order += batch[0]->size() == 1 ? 'c' : 'd';
  }
  EXPECT_EQ(order, "cdcdc");
  EXPECT_TRUE(outbox.empty());
}

TEST(Outbox, ATransferStaysOnTheLaneWhereItBegan) {
  Outbox outbox({.batch_bytes = 100, .chunk_bytes = 4});
  outbox.PushData(TransferId(7), absl::Cord("abcdefgh"));
  outbox.PushData(TransferId(8), absl::Cord("ijkl"));
  EXPECT_EQ(Decode(outbox.NextForCommands(false)).transfer(), 7u);
  // The bulk stream comes: the next transfer begins there, the first one ends where it is.
  EXPECT_EQ(Decode(outbox.NextForBulk()).transfer(), 8u);
  EXPECT_TRUE(outbox.NextForBulk().empty());
  EXPECT_EQ(Decode(outbox.NextForCommands(true)).offset(), 4);
  EXPECT_TRUE(outbox.empty());
}

}  // namespace
}  // namespace causeway::controller
