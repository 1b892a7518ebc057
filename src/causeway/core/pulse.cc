// Jacobson's mean and deviation, over the times that answers take.
#include "causeway/core/pulse.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "causeway/base/probes.h"

namespace causeway::core {
namespace {

constexpr int kSamplesMin = 5;  // before these a whole beat is waited for

}  // namespace

Pulse::Pulse(absl::Duration beat, int missed_max, absl::Time now)
    : beat_(beat), missed_max_(std::max(1, missed_max)), next_(NextBeat(now)) {}

absl::Time Pulse::NextBeat(absl::Time now) const {
  if (now == absl::InfinitePast()) return now;
  return now - (now - absl::UnixEpoch()) % beat_ + beat_;
}

absl::Duration Pulse::deadline() const {
  if (samples_ < kSamplesMin) return beat_;
  const absl::Duration usual = std::max(mean_ + 8 * deviation_, 3 * worst_);
  return std::min(beat_, std::max(usual, kFloor));
}

Pulse::Step Pulse::Send(absl::Time now) {
  silent_.push_back({++sent_, now});
  spared_ = false;
  next_ = now + deadline();
  return Step::kPing;
}

Pulse::Step Pulse::Check(absl::Time now) {
  if (now < next_) return Step::kNothing;
  if (silent_.empty()) return Send(now);
  const absl::Duration each = deadline();
  if (now - next_ > each / 2 && !spared_) {
    spared_ = true;
    REACHED("pulse.looked_too_late");
    heard_ = now;
    next_ = now + each;
    return Step::kNothing;
  }
  const absl::Time first = silent_.front().at;
  const absl::Duration silence = now - std::max(first, heard_);
  const bool asked_enough = static_cast<int>(silent_.size()) >= missed_max_;
  if ((asked_enough && silence >= missed_max_ * each) || now - first >= missed_max_ * beat_) {
    if (each < beat_) REACHED("pulse.found_early");
    why_ = absl::StrCat("it answered none of ", silent_.size(), " heartbeats within ",
                        absl::FormatDuration(absl::Trunc(now - first, absl::Milliseconds(1))));
    return Step::kLost;
  }
  if (!asked_enough) return Send(now);
  next_ = std::min(std::max(first, heard_) + missed_max_ * each, first + missed_max_ * beat_);
  return Step::kNothing;
}

void Pulse::Answered(uint64_t number, absl::Time now) {
  heard_ = now;
  if (number > sent_ || silent_.empty() || number < silent_.front().number) return;
  absl::Duration took;
  while (!silent_.empty() && silent_.front().number <= number) {
    took = now - silent_.front().at;
    silent_.pop_front();
  }
  const absl::Duration off = took - mean_;
  if (samples_++ == 0) {
    mean_ = took;
    deviation_ = took / 2;
  } else {
    mean_ += off / 8;
    deviation_ += ((off < absl::ZeroDuration() ? -off : off) - deviation_) / 4;
  }
  worst_ = std::max(took, worst_ - worst_ / 16);
  if (silent_.empty()) next_ = NextBeat(now);
}

}  // namespace causeway::core
