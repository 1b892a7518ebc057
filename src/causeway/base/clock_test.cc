// Tests of the clocks.
#include "causeway/base/clock.h"

#include "gtest/gtest.h"

namespace causeway {
namespace {

TEST(FakeClock, StandsStillUntilAdvanced) {
  FakeClock clock;
  const absl::Time start = clock.Now();
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(absl::Seconds(3));
  EXPECT_EQ(clock.Now() - start, absl::Seconds(3));
}

TEST(FakeClock, AJumpOfTheDateLeavesAgesAlone) {
  FakeClock clock;
  const absl::Time now = clock.Now();
  const absl::Time date = clock.WallNow();
  clock.JumpWall(-absl::Hours(24));
  EXPECT_EQ(clock.Now(), now);
  EXPECT_EQ(clock.WallNow() - date, -absl::Hours(24));
}

TEST(FakeClockDeathTest, RefusesToGoBack) {
  FakeClock clock;
  EXPECT_DEATH(clock.Advance(-absl::Nanoseconds(1)), "never goes back");
}

TEST(RealClock, NeverGoesBack) {
  RealClock clock;
  absl::Time last = clock.Now();
  for (int i = 0; i < 1000; ++i) {
    const absl::Time now = clock.Now();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST(RealClock, WallTimeIsADate) {
  RealClock clock;
  EXPECT_GT(clock.WallNow(), absl::FromUnixSeconds(1'700'000'000));
}

}  // namespace
}  // namespace causeway
