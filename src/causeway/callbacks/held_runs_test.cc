// Tests: which failures of callbacks are kept from XLA, and for how long.
#include "causeway/callbacks/held_runs.h"

#include <gtest/gtest.h>

namespace causeway::callbacks {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1000);
const absl::Status kFirst = absl::InvalidArgumentError("first");

TEST(HeldRuns, OtherRunsAreXlasOwn) {
  HeldRuns runs;
  runs.Hold(7, false);
  EXPECT_FALSE(runs.Fail(8, kFirst, kStart));
  EXPECT_TRUE(runs.Find(8, kStart).failure.ok());
  EXPECT_TRUE(runs.Release(8).ok());
  EXPECT_TRUE(runs.Release(7).ok());
}

TEST(HeldRuns, TheFirstFailureIsTheLaunchsAndEndsItsCallbacks) {
  HeldRuns runs;
  runs.Hold(7, true);
  EXPECT_TRUE(runs.Find(7, kStart).failure.ok());
  EXPECT_TRUE(runs.Find(7, kStart).shared);
  EXPECT_TRUE(runs.Fail(7, kFirst, kStart));
  EXPECT_TRUE(runs.Fail(7, absl::InternalError("second"), kStart));
  const HeldRuns::Found found = runs.Find(7, kStart);
  EXPECT_EQ(found.failure, kFirst);
  EXPECT_TRUE(found.zeros);
  EXPECT_EQ(runs.Release(7), kFirst);
  // The next launch may bear the number again.
  runs.Hold(7, false);
  EXPECT_TRUE(runs.Find(7, kStart).failure.ok());
  EXPECT_TRUE(runs.Release(7).ok());
}

TEST(HeldRuns, PatienceHasAnEnd) {
  HeldRuns runs;
  runs.Hold(7, false);
  runs.Hold(8, false);
  EXPECT_TRUE(runs.Fail(7, kFirst, kStart));
  const absl::Time late = kStart + HeldRuns::kPatience;
  EXPECT_TRUE(runs.Overdue(late - absl::Seconds(1)).ok());
  EXPECT_EQ(runs.Overdue(late), kFirst);
  EXPECT_FALSE(runs.Find(7, late).zeros);
  EXPECT_EQ(runs.Find(7, late).failure, kFirst);
  EXPECT_FALSE(runs.Fail(7, absl::InternalError("second"), late));
  EXPECT_EQ(runs.Release(7), kFirst);
  EXPECT_TRUE(runs.Overdue(late).ok());
  EXPECT_TRUE(runs.Release(8).ok());
}

}  // namespace
}  // namespace causeway::callbacks
