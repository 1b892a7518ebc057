// Tests of version agreement, the release book of user contexts, and chunk coding.
#include "causeway/proxy/user_contexts.h"

#include <string>
#include <vector>

#include "causeway/proxy/chunk_codec.h"
#include "causeway/proxy/version.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::proxy {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(UserContexts, ReleasesWithTheNextNumber) {
  UserContextLedger ledger;
  std::vector<uint64_t> released;
  ledger.Answered(0, false);
  ledger.Answered(7, false);
  ledger.Answered(7, false);
  EXPECT_EQ(ledger.Number(&released), 0);
  EXPECT_THAT(released, ElementsAre(7, 7));
  EXPECT_EQ(ledger.Number(&released), 1);
  EXPECT_THAT(released, IsEmpty());
}

TEST(UserContexts, HoldsWhatErrorsNameUpToALimit) {
  UserContextLedger ledger(/*max_held=*/2);
  std::vector<uint64_t> released;
  for (uint64_t id : {1, 2, 3}) ledger.Answered(id, true);
  ledger.Number(&released);
  EXPECT_THAT(released, ElementsAre(1));
}

TEST(VersionAgreement, PicksTheNewestCommonOrRefuses) {
  EXPECT_EQ(*Negotiate({16, 0}, {25, 3}), (Version{25, 3}));
  EXPECT_EQ(*Negotiate({15, 0}, {22, 0}), (Version{22, 0}));
  EXPECT_EQ(*Negotiate({16, 0}, {99, 99}), kMaxVersion);
  EXPECT_FALSE(Negotiate({1, 0}, {15, 3}).ok());
  EXPECT_FALSE(Negotiate({26, 0}, {27, 3}).ok());
  EXPECT_FALSE(Negotiate({16, 6}, {25, 9}).ok());
  EXPECT_TRUE(CheckSupported({16, 0}).ok());
  EXPECT_FALSE(CheckSupported({26, 0}).ok());
  EXPECT_FALSE(CheckSupported({}).ok());
}

std::string Bytes(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(buffer.Dump(&slices).ok());
  std::string out;
  for (const auto& s : slices) out.append(reinterpret_cast<const char*>(s.begin()), s.size());
  return out;
}

// Every byte in a slice of its own: the hardest way to receive a message.
grpc::ByteBuffer Shred(const std::string& bytes) {
  std::vector<grpc::Slice> slices;
  for (const char& c : bytes) slices.emplace_back(&c, 1);
  slices.emplace_back();
  return grpc::ByteBuffer(slices.data(), slices.size());
}

TEST(ChunkCodec, RoundTripsThroughAnySlicing) {
  for (size_t size : {0, 1, 15, 16, 127, 128, 70000}) {
    absl::Cord data;
    for (size_t i = 0; i < size; ++i) data.Append(std::string(1, static_cast<char>(i * 7)));
    const std::string wire = Bytes(EncodeChunk(data));
    std::string got;
    auto take = [&got](absl::string_view piece) {
      got.append(piece.data(), piece.size());
      return absl::OkStatus();
    };
    ASSERT_TRUE(DecodeChunk(Shred(wire), take).ok()) << size;
    EXPECT_EQ(got, std::string(data)) << size;
  }
}

TEST(ChunkCodec, SkipsOtherFieldsAndRefusesNonsense) {
  std::string got;
  auto take = [&got](absl::string_view piece) {
    got.append(piece.data(), piece.size());
    return absl::OkStatus();
  };
  // field 2 = varint 5, field 3 = "zz", field 1 = "ab"
  ASSERT_TRUE(DecodeChunk(Shred("\x10\x05\x1a\x02zz\x0a\x02" "ab"), take).ok());
  EXPECT_EQ(got, "ab");
  const std::string endless(10, '\xff');
  for (const std::string& bad : std::vector<std::string>{
           "\x0a", "\x0a\x05" "ab", "\x0d" "abcd", endless}) {
    EXPECT_EQ(DecodeChunk(Shred(bad), take).code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_TRUE(DecodeChunk(EmptyMessage(), take).ok());
}

}  // namespace
}  // namespace causeway::proxy
