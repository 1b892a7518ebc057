// Tests: order, held reading, and the end of a stream's write side.
#include "causeway/proxy/reply_queue.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace causeway::proxy {
namespace {

class CountingStream : public ReplyStream {
 public:
  void Write(const ifrt::IfrtResponse& message, bool more) override {
    ++writes;
    last_more = more;
    const auto& metadata = message.response_metadata();
    number = metadata.seq_num();
    released.assign(metadata.destroyed_user_context_ids().begin(),
                    metadata.destroyed_user_context_ids().end());
  }
  void Read() override { ++reads; }
  void ReleaseSoon() override { ++releases_due; }
  void Finish(const grpc::Status& status) override { ++ends; }

  int writes = 0, reads = 0, ends = 0, releases_due = 0;
  bool last_more = false;
  int64_t number = -1;
  std::vector<uint64_t> released;
};

TEST(ReplyQueue, WritesOneAtATimeAndHoldsReadingBack) {
  CountingStream stream;
  ReplyQueue queue(&stream, /*max_queued=*/2);
  for (int i = 0; i < 4; ++i) queue.Send(queue.NewReply(), {});
  EXPECT_EQ(stream.writes, 1);
  EXPECT_FALSE(queue.MayRead());
  EXPECT_FALSE(queue.OnWriteDone(true));
  EXPECT_TRUE(stream.last_more);
  EXPECT_TRUE(queue.OnWriteDone(true));  // few enough wait: read again
  EXPECT_TRUE(queue.MayRead());
  EXPECT_FALSE(queue.OnWriteDone(true));
  EXPECT_FALSE(stream.last_more);
  EXPECT_EQ(stream.writes, 4);
}

TEST(ReplyQueue, HoldsWhatNobodyWaitsForUntilManyCanLeaveTogether) {
  CountingStream stream;
  ReplyQueue queue(&stream, /*max_queued=*/100);
  for (size_t i = 0; i + 1 < ReplyQueue::kHeldMax; ++i) {
    queue.Send(queue.NewReply(), {.awaited = false});
  }
  EXPECT_EQ(stream.writes, 0);
  EXPECT_EQ(stream.releases_due, 1);
  queue.Send(queue.NewReply(), {.awaited = false});
  EXPECT_EQ(stream.writes, 1);
  for (size_t i = 1; i < ReplyQueue::kHeldMax; ++i) {
    EXPECT_TRUE(stream.last_more);
    EXPECT_FALSE(queue.OnWriteDone(true));
  }
  EXPECT_EQ(stream.writes, static_cast<int>(ReplyQueue::kHeldMax));
  EXPECT_FALSE(stream.last_more);
}

TEST(ReplyQueue, AnAwaitedReplyOvertakesTheHeldAndNumbersFollowTheWire) {
  CountingStream stream;
  ReplyQueue queue(&stream, /*max_queued=*/100);
  queue.Send(queue.NewReply(), {.user_context = 7, .numbered = true, .awaited = false});
  queue.Send(queue.NewReply(), {.user_context = 8, .numbered = true});
  EXPECT_EQ(stream.writes, 1);
  EXPECT_EQ(stream.number, 0);
  EXPECT_EQ(stream.released, (std::vector<uint64_t>{8}));
  EXPECT_FALSE(queue.OnWriteDone(true));
  EXPECT_EQ(stream.writes, 1);
  queue.ReleaseHeld();
  EXPECT_EQ(stream.writes, 2);
  EXPECT_EQ(stream.number, 1);
  EXPECT_EQ(stream.released, (std::vector<uint64_t>{7}));
  EXPECT_FALSE(queue.OnWriteDone(true));
  // The next one is not forgotten.
  queue.Send(queue.NewReply(), {.awaited = false});
  EXPECT_EQ(stream.releases_due, 2);
  queue.Finish(grpc::Status::OK);
  queue.ReleaseHeld();
  EXPECT_EQ(stream.writes, 2);
}

TEST(ReplyQueue, NothingBeginsAfterTheEnd) {
  CountingStream stream;
  ReplyQueue queue(&stream, 2);
  queue.Read();
  EXPECT_EQ(stream.reads, 1);
  queue.Finish(grpc::Status::OK);
  queue.Finish(grpc::Status::CANCELLED);
  EXPECT_EQ(stream.ends, 1);
  // One who made room for a request wakes the reader late.
  queue.Read();
  queue.Send(queue.NewReply(), {});
  EXPECT_EQ(stream.reads, 1);
  EXPECT_EQ(stream.writes, 0);
}

}  // namespace
}  // namespace causeway::proxy
