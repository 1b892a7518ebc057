// Tests of strided copies between host buffers.
#include "causeway/model/host_copy.h"

#include <cstring>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"

namespace causeway::model {
namespace {

TEST(HostCopy, StridesOfDenseArrays) {
  EXPECT_EQ(DenseStrides({2, 3, 4}, 4), (std::vector<int64_t>{48, 16, 4}));
  EXPECT_EQ(DenseStrides({}, 8), (std::vector<int64_t>{}));
  EXPECT_EQ(ByteOffset({1, 2, 3}, {48, 16, 4}), 92);
}

TEST(HostCopy, SpannedBytes) {
  EXPECT_EQ(*SpannedBytes({2, 3}, {12, 4}, 4), 24);
  EXPECT_EQ(*SpannedBytes({2, 3}, {100, 8}, 4), 120);
  EXPECT_EQ(*SpannedBytes({}, {}, 4), 4);
  EXPECT_EQ(*SpannedBytes({0, 3}, {12, 4}, 4), 0);
  EXPECT_EQ(SpannedBytes({2}, {-4}, 4).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(HostCopy, TransposesThroughStrides) {
  std::vector<int32_t> source(6), target(6, -1);
  std::iota(source.begin(), source.end(), 0);
  CopyStrided({3, 2}, 4, reinterpret_cast<char*>(source.data()), {4, 12},
              reinterpret_cast<char*>(target.data()), {8, 4});
  EXPECT_EQ(target, (std::vector<int32_t>{0, 3, 1, 4, 2, 5}));
}

TEST(HostCopy, TouchesOnlyItsBox) {
  std::vector<int16_t> target(16, 7), source = {1, 2, 3, 4};
  CopyStrided({2, 2}, 2, reinterpret_cast<char*>(source.data()), DenseStrides({2, 2}, 2),
              reinterpret_cast<char*>(target.data() + 5), DenseStrides({4, 4}, 2));
  EXPECT_EQ(target, (std::vector<int16_t>{7, 7, 7, 7, 7, 1, 2, 7, 7, 3, 4, 7, 7, 7, 7, 7}));
}

TEST(HostCopy, NothingAndScalars) {
  char target = 'x';
  const char source = 'y';
  CopyStrided({0}, 1, &source, {1}, &target, {1});
  EXPECT_EQ(target, 'x');
  CopyStrided({}, 1, &source, {}, &target, {});
  EXPECT_EQ(target, 'y');
}

TEST(HostCopy, StridesOfNoRealArrayAreRefused) {
  EXPECT_EQ(SpannedBytes({4}, {int64_t{1} << 40}, 4).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(SpannedBytes({3, 3}, {INT64_MAX / 2, INT64_MAX / 2}, 4).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(*SpannedBytes({4}, {16}, 4), 52);  // padded
  EXPECT_EQ(*SpannedBytes({4}, {0}, 4), 4);    // broadcast
}

TEST(HostCopy, TheStrideOfASingleElementMeansNothing) {
  std::vector<int32_t> source = {1, 2}, target = {0, 0};
  CopyStrided({2, 1, 1}, 4, reinterpret_cast<char*>(source.data()), {4, INT64_MAX, INT64_MIN},
              reinterpret_cast<char*>(target.data()), {4, INT64_MIN, 4});
  EXPECT_EQ(target, source);
  EXPECT_EQ(*SpannedBytes({2, 1}, {4, INT64_MAX}, 4), 8);
}

}  // namespace
}  // namespace causeway::model
