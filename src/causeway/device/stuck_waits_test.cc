// Tests of which waits count as stuck, with a clock and processor time that the test moves.
#include "causeway/device/stuck_waits.h"

#include "gtest/gtest.h"

namespace causeway::device {
namespace {

class Stuck : public ::testing::Test {
 protected:
  // In steps of a look; of each, the process computes for `share`.
  void Pass(absl::Duration time, double share) {
    for (; time > absl::ZeroDuration(); time -= StuckWaits::kQuiet) {
      spent_ += share * StuckWaits::kQuiet;
      timers_.Advance(StuckWaits::kQuiet);
    }
  }

  FakeClock clock_;
  FakeTimers timers_{clock_};
  absl::Duration spent_ = absl::Seconds(7);
  int stuck_ = 0;
  StuckWaits waits_{clock_, timers_, [this] { return spent_; }, [this] { ++stuck_; }};
};

TEST_F(Stuck, AWaitInWhichNothingIsComputed) {
  const uint64_t wait = waits_.Begin();
  Pass(StuckWaits::kQuiet, 0.01);
  EXPECT_EQ(stuck_, 1);
  waits_.End(wait);
}

TEST_F(Stuck, NotAWaitForWork) {
  const uint64_t wait = waits_.Begin();
  Pass(StuckWaits::kLongest - StuckWaits::kQuiet, 0.5);
  EXPECT_EQ(stuck_, 0);
  Pass(StuckWaits::kQuiet, 0.01);
  EXPECT_EQ(stuck_, 1);
  waits_.End(wait);
}

TEST_F(Stuck, AWaitThatLastsLongestWhateverIsComputed) {
  const uint64_t wait = waits_.Begin();
  Pass(StuckWaits::kLongest, 1.0);
  EXPECT_EQ(stuck_, 1);
  waits_.End(wait);
}

TEST_F(Stuck, NotManyShortWaits) {
  for (int i = 0; i < 100; ++i) {
    const uint64_t wait = waits_.Begin();
    timers_.Advance(StuckWaits::kQuiet / 2);
    const uint64_t next = waits_.Begin();
    waits_.End(wait);
    timers_.Advance(StuckWaits::kQuiet / 4);
    waits_.End(next);
  }
  EXPECT_EQ(stuck_, 0);
}

TEST_F(Stuck, NobodyLooksWhileNobodyWaits) {
  waits_.End(waits_.Begin());
  waits_.End(waits_.Begin());
  EXPECT_EQ(timers_.pending(), 1);
  Pass(StuckWaits::kQuiet, 0);
  EXPECT_EQ(timers_.pending(), 0);
  EXPECT_EQ(stuck_, 0);
}

}  // namespace
}  // namespace causeway::device
