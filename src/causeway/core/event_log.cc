// The ring of events and the waits for its next one.
#include "causeway/core/event_log.h"

#include <utility>

namespace causeway::core {

void EventLog::Append(ClusterEvent event) {
  absl::MutexLock lock(&mu_);
  event.number = ++last_;
  events_.push_back(std::move(event));
  if (events_.size() > events_max_) events_.pop_front();
}

uint64_t EventLog::last() const {
  absl::MutexLock lock(&mu_);
  return last_;
}

EventBatch EventLog::After(uint64_t after, absl::Duration wait) const {
  absl::MutexLock lock(&mu_);
  if (after > last_) after = 0;
  auto ready = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return closed_ || last_ > after; };
  mu_.AwaitWithTimeout(absl::Condition(&ready), wait);
  EventBatch batch;
  batch.next = last_;
  const uint64_t first = last_ - events_.size() + 1;  // the oldest that is still known
  if (first > after + 1) batch.missed = first - after - 1;
  for (const ClusterEvent& event : events_) {
    if (event.number > after) batch.events.push_back(event);
  }
  return batch;
}

void EventLog::Close() {
  absl::MutexLock lock(&mu_);
  closed_ = true;
}

}  // namespace causeway::core
