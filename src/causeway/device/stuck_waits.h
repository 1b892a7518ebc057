// Tells when those who wait for XLA wait for something that does not move.
//
// Thread safety: thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "causeway/base/clock.h"
#include "causeway/base/timers.h"

namespace causeway::device {

class StuckWaits {
 public:
  // A wait is stuck when it has lasted kQuiet in which the process computed next to nothing, or
  // kLongest whatever it did. It is looked at every kQuiet while somebody waits.
  static constexpr absl::Duration kQuiet = absl::Milliseconds(200);
  static constexpr absl::Duration kLongest = absl::Seconds(10);

  // `spent` is the processor time of this process; `stuck` is called for every look that finds such
  // a wait, on the timers' thread. All are borrowed.
  StuckWaits(Clock& clock, Timers& timers, std::function<absl::Duration()> spent,
             std::function<void()> stuck);

  // Returns the wait's name, never 0.
  uint64_t Begin();
  void End(uint64_t wait);

 private:
  void LookLater() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Look();

  Clock& clock_;
  Timers& timers_;
  const std::function<absl::Duration()> spent_;
  const std::function<void()> stuck_;
  absl::Mutex mu_;
  uint64_t last_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<uint64_t, absl::Time> waits_ ABSL_GUARDED_BY(mu_);  // the first has lasted longest
  bool looking_ ABSL_GUARDED_BY(mu_) = false;
  absl::Duration spent_then_ ABSL_GUARDED_BY(mu_);  // at the last look
};

}  // namespace causeway::device
