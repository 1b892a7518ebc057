// Tests of the timers, real and fake.
#include "causeway/base/timers.h"

#include <functional>
#include <memory>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

namespace causeway {
namespace {

constexpr absl::Duration kLong = absl::Hours(1);
constexpr absl::Duration kBound = absl::Seconds(30);

TEST(FakeTimers, RunInOrderOfTimeThenOfScheduling) {
  FakeClock clock;
  FakeTimers timers(clock);
  const absl::Time start = clock.Now();
  std::vector<std::pair<int, absl::Duration>> seen;
  auto note = [&](int n) { return [&, n] { seen.emplace_back(n, clock.Now() - start); }; };
  timers.Schedule(absl::Seconds(2), note(1));
  timers.Schedule(absl::Seconds(1), note(2));
  timers.Schedule(absl::Seconds(2), note(3));
  timers.Schedule(absl::Seconds(9), note(4));
  timers.Advance(absl::Seconds(5));
  const std::vector<std::pair<int, absl::Duration>> expected = {
      {2, absl::Seconds(1)}, {1, absl::Seconds(2)}, {3, absl::Seconds(2)}};
  EXPECT_EQ(seen, expected);
  EXPECT_EQ(clock.Now() - start, absl::Seconds(5));
  EXPECT_EQ(timers.pending(), 1);
}

TEST(FakeTimers, ACallbackMayScheduleWithinTheSameAdvance) {
  FakeClock clock;
  FakeTimers timers(clock);
  int beats = 0;
  std::function<void()> beat = [&] {
    ++beats;
    timers.Schedule(absl::Seconds(1), [&] { beat(); });
  };
  timers.Schedule(absl::Seconds(1), [&] { beat(); });
  timers.Advance(absl::Seconds(10));
  EXPECT_EQ(beats, 10);
}

TEST(FakeTimers, CancelledCallbacksNeverRun) {
  FakeClock clock;
  FakeTimers timers(clock);
  bool ran = false;
  const TimerId id = timers.Schedule(absl::Seconds(1), [&] { ran = true; });
  EXPECT_TRUE(timers.Cancel(id));
  EXPECT_FALSE(timers.Cancel(id));
  timers.Advance(kLong);
  EXPECT_FALSE(ran);
}

TEST(RealTimers, RunsAndPrefersTheEarlier) {
  RealTimers timers;
  std::vector<int> seen;
  absl::Notification done;
  timers.Schedule(absl::Milliseconds(30), [&] {
    seen.push_back(2);
    done.Notify();
  });
  timers.Schedule(-absl::Seconds(1), [&] { seen.push_back(1); });
  ASSERT_TRUE(done.WaitForNotificationWithTimeout(kBound));
  EXPECT_EQ(seen, (std::vector<int>{1, 2}));
}

TEST(RealTimers, CancelStopsAPendingOneAndFindsARunOneGone) {
  RealTimers timers;
  absl::Notification ran;
  const TimerId far = timers.Schedule(kLong, [] { ADD_FAILURE() << "was cancelled"; });
  const TimerId near = timers.Schedule(absl::ZeroDuration(), [&] { ran.Notify(); });
  ASSERT_TRUE(ran.WaitForNotificationWithTimeout(kBound));
  EXPECT_TRUE(timers.Cancel(far));
  EXPECT_FALSE(timers.Cancel(near));
}

TEST(RealTimers, DestructionDropsWhatIsPending) {
  auto owned = std::make_shared<int>(1);
  {
    RealTimers timers;
    timers.Schedule(kLong, [owned] { ADD_FAILURE() << "ran " << *owned; });
    EXPECT_EQ(owned.use_count(), 2);
  }
  EXPECT_EQ(owned.use_count(), 1);
}

}  // namespace
}  // namespace causeway
