// Timers on a thread, and timers that a test advances.
#include "causeway/base/timers.h"

#include <algorithm>
#include <utility>

namespace causeway {

RealTimers::RealTimers() : thread_([this] { Loop(); }) {}

RealTimers::~RealTimers() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    wake_.Signal();
  }
  thread_.join();
}

TimerId RealTimers::Schedule(absl::Duration delay, TimerCallback callback) {
  absl::MutexLock lock(&mu_);
  const uint64_t id = next_++;
  const absl::Time due = clock_.Now() + std::max(delay, absl::ZeroDuration());
  queue_.emplace(Key(due, id), std::move(callback));
  due_.emplace(id, due);
  wake_.Signal();
  return TimerId(id);
}

bool RealTimers::Cancel(TimerId id) {
  TimerCallback dropped;  // destroyed after the lock: it may own what schedules again
  absl::MutexLock lock(&mu_);
  auto it = due_.find(id.value());
  if (it == due_.end()) return false;
  auto entry = queue_.find(Key(it->second, id.value()));
  dropped = std::move(entry->second);
  queue_.erase(entry);
  due_.erase(it);
  return true;
}

void RealTimers::Loop() {
  mu_.Lock();
  while (!stopping_) {
    if (queue_.empty()) {
      wake_.Wait(&mu_);
      continue;
    }
    auto first = queue_.begin();
    const absl::Duration left = first->first.first - clock_.Now();
    if (left > absl::ZeroDuration()) {
      wake_.WaitWithTimeout(&mu_, left);
      continue;
    }
    TimerCallback callback = std::move(first->second);
    due_.erase(first->first.second);
    queue_.erase(first);
    mu_.Unlock();
    std::move(callback)();
    callback = nullptr;
    mu_.Lock();
  }
  mu_.Unlock();
}

TimerId FakeTimers::Schedule(absl::Duration delay, TimerCallback callback) {
  absl::MutexLock lock(&mu_);
  const uint64_t id = next_++;
  queue_.emplace(Key(clock_.Now() + std::max(delay, absl::ZeroDuration()), id),
                 std::move(callback));
  return TimerId(id);
}

bool FakeTimers::Cancel(TimerId id) {
  TimerCallback dropped;
  absl::MutexLock lock(&mu_);
  for (auto it = queue_.begin(); it != queue_.end(); ++it) {
    if (it->first.second != id.value()) continue;
    dropped = std::move(it->second);
    queue_.erase(it);
    return true;
  }
  return false;
}

void FakeTimers::Advance(absl::Duration by) {
  const absl::Time target = clock_.Now() + by;
  while (true) {
    TimerCallback callback;
    {
      absl::MutexLock lock(&mu_);
      if (queue_.empty() || queue_.begin()->first.first > target) break;
      auto first = queue_.begin();
      clock_.Advance(std::max(first->first.first - clock_.Now(), absl::ZeroDuration()));
      callback = std::move(first->second);
      queue_.erase(first);
    }
    std::move(callback)();
  }
  clock_.Advance(std::max(target - clock_.Now(), absl::ZeroDuration()));
}

int FakeTimers::pending() {
  absl::MutexLock lock(&mu_);
  return static_cast<int>(queue_.size());
}

}  // namespace causeway
