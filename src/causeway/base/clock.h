// The clock seam: time comes in from outside, so that tests and the simulator own it.
//
// Thread safety: all methods are thread-safe.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace causeway {

class Clock {
 public:
  virtual ~Clock() = default;
  // Never goes back and knows no date: for ages, deadlines and rates. Only differences mean
  // something; the origin is unspecified.
  virtual absl::Time Now() = 0;
  // The date, for people and files. May jump.
  virtual absl::Time WallNow() = 0;
};

// The machine's own clocks.
class RealClock : public Clock {
 public:
  absl::Time Now() override;
  absl::Time WallNow() override;
};

// Stands still until it is told to move.
class FakeClock : public Clock {
 public:
  explicit FakeClock(absl::Time start = absl::FromUnixSeconds(1'000'000)) : now_(start) {}
  absl::Time Now() override;
  absl::Time WallNow() override;
  // CHECKs that time does not go back.
  void Advance(absl::Duration by);
  // Moves the date alone, as an administrator would.
  void JumpWall(absl::Duration by);

 private:
  absl::Mutex mu_;
  absl::Time now_ ABSL_GUARDED_BY(mu_);
  absl::Duration wall_offset_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway
