// The event queue.
#include "causeway/sim/scheduler.h"

#include <algorithm>

namespace causeway::sim {

TimerId Scheduler::Schedule(absl::Duration delay, TimerCallback callback) {
  const uint64_t id = next_++;
  const absl::Time due = now_ + std::max(delay, absl::ZeroDuration());
  queue_.emplace(Key(due, id), std::move(callback));
  due_.emplace(id, due);
  return TimerId(id);
}

bool Scheduler::Cancel(TimerId id) {
  const auto it = due_.find(id.value());
  if (it == due_.end()) return false;
  queue_.erase(Key(it->second, id.value()));
  due_.erase(it);
  return true;
}

bool Scheduler::Step() {
  if (queue_.empty()) return false;
  const auto first = queue_.begin();
  now_ = first->first.first;
  due_.erase(first->first.second);
  TimerCallback callback = std::move(first->second);
  queue_.erase(first);
  ++steps_;
  std::move(callback)();
  return true;
}

}  // namespace causeway::sim
