// The machine's clocks, and a clock that tests move by hand.
#include "causeway/base/clock.h"

#include <chrono>

#include "absl/time/clock.h"
#include "causeway/base/check.h"

namespace causeway {

absl::Time RealClock::Now() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

absl::Time RealClock::WallNow() { return absl::Now(); }

absl::Time FakeClock::Now() {
  absl::MutexLock lock(&mu_);
  return now_;
}

absl::Time FakeClock::WallNow() {
  absl::MutexLock lock(&mu_);
  return now_ + wall_offset_;
}

void FakeClock::Advance(absl::Duration by) {
  CHECK_GE(by, absl::ZeroDuration()) << "a monotonic clock never goes back";
  absl::MutexLock lock(&mu_);
  now_ += by;
}

void FakeClock::JumpWall(absl::Duration by) {
  absl::MutexLock lock(&mu_);
  wall_offset_ += by;
}

}  // namespace causeway
