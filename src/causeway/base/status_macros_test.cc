// Tests of the early-return macros and of CHECK.
#include "causeway/base/status_macros.h"

#include <memory>

#include "causeway/base/check.h"
#include "gtest/gtest.h"

namespace causeway {
namespace {

absl::StatusOr<std::unique_ptr<int>> Make(int value) {
  if (value < 0) return absl::InvalidArgumentError("negative");
  return std::make_unique<int>(value);
}

absl::Status Sum(int a, int b, int* sum) {
  ASSIGN_OR_RETURN(std::unique_ptr<int> first, Make(a));
  ASSIGN_OR_RETURN(const std::unique_ptr<int> second, Make(b));
  *sum = *first + *second;
  RETURN_IF_ERROR(*sum > 100 ? absl::OutOfRangeError("large") : absl::OkStatus());
  return absl::OkStatus();
}

TEST(StatusMacros, PassValuesAndReturnTheFirstError) {
  int sum = 0;
  EXPECT_TRUE(Sum(1, 2, &sum).ok());
  EXPECT_EQ(sum, 3);
  EXPECT_EQ(Sum(1, -2, &sum).message(), "negative");
  EXPECT_EQ(sum, 3);
  EXPECT_EQ(Sum(99, 2, &sum).code(), absl::StatusCode::kOutOfRange);
}

TEST(CheckDeathTest, NamesTheExpressionAndTheReason) {
  const int workers = 3;
  CHECK_EQ(workers, 3) << "not printed";
  EXPECT_DEATH(CHECK_LT(workers, 2) << "workers: " << workers,
               "CHECK failed: .*workers.* workers: 3");
}

}  // namespace
}  // namespace causeway
