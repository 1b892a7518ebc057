// The timer seam: "call this after a while", on one thread or in simulated time.
//
// Thread safety: all methods are thread-safe. Callbacks run one at a time, never inside Schedule or
// Cancel, and without any lock of the timers; they may schedule and cancel.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "causeway/base/clock.h"
#include "causeway/base/strong_id.h"

namespace causeway {

// Names one scheduled callback; 0 names none.
using TimerId = StrongId<struct TimerIdTag, uint64_t>;
using TimerCallback = absl::AnyInvocable<void() &&>;

class Timers {
 public:
  virtual ~Timers() = default;
  // Calls `callback` once, `delay` from now or a little later; a negative delay counts as zero.
  // Equal times run in the order of scheduling. Dropped unrun when the timers are destroyed first.
  virtual TimerId Schedule(absl::Duration delay, TimerCallback callback) = 0;
  // True: the callback will not run. False: it ran, runs just now, or never was.
  virtual bool Cancel(TimerId id) = 0;
};

// Callbacks run on one thread of its own; keep them short.
class RealTimers : public Timers {
 public:
  RealTimers();
  // Waits for a callback that is running; drops all others.
  ~RealTimers() override;
  TimerId Schedule(absl::Duration delay, TimerCallback callback) override;
  bool Cancel(TimerId id) override;

 private:
  using Key = std::pair<absl::Time, uint64_t>;
  void Loop();

  RealClock clock_;
  absl::Mutex mu_;
  absl::CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t next_ ABSL_GUARDED_BY(mu_) = 1;
  std::map<Key, TimerCallback> queue_ ABSL_GUARDED_BY(mu_);
  std::map<uint64_t, absl::Time> due_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

// Callbacks run inside Advance, on the caller's thread, each at its own time of the fake clock.
class FakeTimers : public Timers {
 public:
  // The clock is borrowed; only Advance moves it.
  explicit FakeTimers(FakeClock& clock) : clock_(clock) {}
  TimerId Schedule(absl::Duration delay, TimerCallback callback) override;
  bool Cancel(TimerId id) override;
  // Moves the clock by `by`, stopping at every callback that falls due on the way.
  void Advance(absl::Duration by);
  int pending();

 private:
  using Key = std::pair<absl::Time, uint64_t>;

  FakeClock& clock_;
  absl::Mutex mu_;
  uint64_t next_ ABSL_GUARDED_BY(mu_) = 1;
  std::map<Key, TimerCallback> queue_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway
