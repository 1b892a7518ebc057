// Tests of what arrives whole: many small blocks at once, again, damaged; and of their memory.
#include "causeway/worker/transfer_assembler.h"

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "causeway/worker/recent_transfers.h"
#include "gtest/gtest.h"

namespace causeway::worker {
namespace {

TransferId Id(uint64_t n) { return TransferId((uint64_t{1} << 48) | n); }

class AssemblerTest : public ::testing::Test {
 protected:
  static TransferAssembler::Whole Whole(uint64_t id, const std::string& bytes, int attempt = 0) {
    TransferAssembler::Whole whole;
    whole.transfer = Id(id);
    whole.attempt = attempt;
    whole.bytes = device::HostBlock::FromString(bytes);
    return whole;
  }
  static TransferAssembler::Whole Damaged(uint64_t id, int attempt) {
    TransferAssembler::Whole whole = Whole(id, "damaged", attempt);
    whole.checksum = 1;
    return whole;
  }
  std::map<TransferId, std::vector<std::string>> arrived_;
  TransferAssembler assembler_{[this](TransferId id, absl::StatusOr<device::HostBytes> bytes,
                                      std::vector<int64_t>) {
    arrived_[id].push_back(bytes.ok() ? std::string((*bytes)->data(), (*bytes)->size())
                                      : bytes.status().ToString());
  }};
};

TEST_F(AssemblerTest, EachOfManyBlocksHasItsOwnOutcome) {
  std::vector<TransferAssembler::Whole> wholes;
  wholes.push_back(Whole(1, "one"));
  wholes.push_back(Damaged(2, 0));
  wholes.push_back(Whole(3, ""));
  wholes.push_back(Whole(1, "one more"));  // twice in one frame
  wholes.push_back(Whole(4, ""));
  wholes.back().bytes = nullptr;
  const auto outcomes = assembler_.AddWholes(std::move(wholes));
  ASSERT_EQ(outcomes.size(), 5u);
  EXPECT_TRUE(outcomes[0].complete && outcomes[2].complete && outcomes[3].complete);
  EXPECT_FALSE(outcomes[1].complete || outcomes[4].complete);
  EXPECT_EQ(outcomes[1].refused.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(outcomes[4].refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(arrived_, (std::map<TransferId, std::vector<std::string>>{{Id(1), {"one"}},
                                                                      {Id(3), {""}}}));
  // The later attempts are taken, and what arrived does not arrive again.
  wholes.clear();
  wholes.push_back(Whole(2, "two", 1));
  wholes.push_back(Whole(3, "again", 1));
  wholes.push_back(Whole(4, "four", 1));
  for (const auto& outcome : assembler_.AddWholes(std::move(wholes))) {
    EXPECT_TRUE(outcome.complete);
  }
  EXPECT_EQ(arrived_[Id(2)], std::vector<std::string>{"two"});
  EXPECT_EQ(arrived_[Id(3)], std::vector<std::string>{""});
  EXPECT_EQ(arrived_[Id(4)], std::vector<std::string>{"four"});
  EXPECT_EQ(assembler_.num_partial(), 0u);
}

TEST_F(AssemblerTest, ABlockThatIsDamagedTwiceIsRefusedTwice) {
  for (int attempt : {0, 1}) {
    const auto outcomes = assembler_.AddWholes({Damaged(1, attempt)});
    EXPECT_EQ(outcomes.front().refused.code(), absl::StatusCode::kDataLoss) << attempt;
  }
  // What is left of an attempt that was refused is dropped.
  EXPECT_FALSE(assembler_.AddWholes({Whole(1, "late", 1)}).front().complete);
  EXPECT_TRUE(arrived_.empty());
}

TEST(RecentTransfersTest, TheLatestAreKnownAndTheOldestForgotten) {
  RecentTransfers recent(1000);
  for (uint64_t i = 0; i < 5000; ++i) {
    EXPECT_TRUE(recent.Add(Id(i * 7))) << i;
    EXPECT_FALSE(recent.Add(Id(i * 7))) << i;
  }
  for (uint64_t i = 4000; i < 5000; ++i) EXPECT_TRUE(recent.Contains(Id(i * 7))) << i;
  EXPECT_FALSE(recent.Add(Id(4000 * 7)));
  EXPECT_FALSE(recent.Contains(Id(4999 * 7 + 1)));
  EXPECT_TRUE(recent.Add(Id(0)));
  recent.Clear();
  EXPECT_FALSE(recent.Contains(Id(4999 * 7)));
  EXPECT_TRUE(recent.Add(Id(4999 * 7)));
}

TEST(HostBlockTest, ManyBlocksOfAllSizesAreApartAndAlignedAndOutliveEachOther) {
  std::vector<size_t> sizes;
  for (size_t i = 0; i < 300; ++i) sizes.push_back(i * 37 % 1500);
  for (size_t size : {size_t{16} << 10, size_t{0}, size_t{100} << 10, size_t{1}}) {
    sizes.push_back(size);
  }
  auto blocks = device::HostBlock::AllocateAll(sizes);
  ASSERT_EQ(blocks.size(), sizes.size());
  for (size_t i = 0; i < blocks.size(); ++i) {
    ASSERT_EQ(blocks[i]->size(), sizes[i]);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(blocks[i]->data()) % 64, 0u) << i;
    std::memset(blocks[i]->mutable_data(), static_cast<int>(i % 251), sizes[i]);
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (i % 3 != 0) blocks[i] = nullptr;
  }
  for (size_t i = 0; i < blocks.size(); i += 3) {
    const std::string expected(sizes[i], static_cast<char>(i % 251));
    EXPECT_TRUE(std::string(blocks[i]->data(), sizes[i]) == expected) << i;
  }
}

}  // namespace
}  // namespace causeway::worker
