// The list of waits, and the look at it.
#include "causeway/device/stuck_waits.h"

#include <utility>

namespace causeway::device {
namespace {

// What a process with nothing to do spends in kQuiet on heartbeats is far below.
constexpr absl::Duration kNextToNothing = absl::Milliseconds(10);

}  // namespace

StuckWaits::StuckWaits(Clock& clock, Timers& timers, std::function<absl::Duration()> spent,
                       std::function<void()> stuck)
    : clock_(clock), timers_(timers), spent_(std::move(spent)), stuck_(std::move(stuck)) {}

uint64_t StuckWaits::Begin() {
  absl::MutexLock lock(&mu_);
  waits_.emplace_hint(waits_.end(), ++last_, clock_.Now());
  if (!looking_) LookLater();
  return last_;
}

void StuckWaits::End(uint64_t wait) {
  absl::MutexLock lock(&mu_);
  waits_.erase(wait);
}

void StuckWaits::LookLater() {
  looking_ = true;
  spent_then_ = spent_();
  timers_.Schedule(kQuiet, [this] { Look(); });
}

void StuckWaits::Look() {
  bool stuck = false;
  {
    absl::MutexLock lock(&mu_);
    looking_ = false;
    if (waits_.empty()) return;
    const absl::Duration lasted = clock_.Now() - waits_.begin()->second;
    stuck = lasted >= kLongest || (lasted >= kQuiet && spent_() - spent_then_ < kNextToNothing);
    LookLater();
  }
  if (stuck) stuck_();
}

}  // namespace causeway::device
