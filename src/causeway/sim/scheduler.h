// Virtual time: a queue of events, run one at a time, in an order that only the seed decides.
//
// Thread safety: none; a simulation is one thread.
#pragma once

#include <cstdint>
#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "causeway/base/clock.h"
#include "causeway/base/timers.h"

namespace causeway::sim {

class Scheduler final : public Clock, public Timers {
 public:
  absl::Time Now() override { return now_; }
  absl::Time WallNow() override { return now_; }
  TimerId Schedule(absl::Duration delay, TimerCallback callback) override;
  bool Cancel(TimerId id) override;

  // Moves to the next event and runs it; false when there is none.
  bool Step();
  int64_t steps() const { return steps_; }

 private:
  using Key = std::pair<absl::Time, uint64_t>;
  absl::Time now_ = absl::FromUnixSeconds(1'700'000'000);
  uint64_t next_ = 1;
  int64_t steps_ = 0;
  std::map<Key, TimerCallback> queue_;
  absl::flat_hash_map<uint64_t, absl::Time> due_;
};

}  // namespace causeway::sim
