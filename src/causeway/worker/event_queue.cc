// Merging of confirmations, and what a stream's end forgets.
#include "causeway/worker/event_queue.h"

#include <algorithm>
#include <utility>
#include <variant>

namespace causeway::worker {

void EventQueue::Open() {
  absl::MutexLock lock(&mu_);
  events_.clear();
  open_ = true;
}

void EventQueue::Close() {
  absl::MutexLock lock(&mu_);
  events_.clear();
  open_ = false;
}

void EventQueue::Put(Event event) {
  absl::MutexLock lock(&mu_);
  if (!open_) return;
  // Confirmations are cumulative: the newest says it all.
  if (const auto* done = std::get_if<LaunchDone>(&event); done != nullptr && !events_.empty()) {
    auto* last = std::get_if<LaunchDone>(&events_.back());
    if (last != nullptr && last->epoch == done->epoch) {
      last->seq = std::max(last->seq, done->seq);
      return;
    }
  }
  events_.push_back(std::move(event));
}

bool EventQueue::Take(std::deque<Event>* events) {
  absl::MutexLock lock(&mu_);
  auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !open_ || !events_.empty();
  };
  mu_.Await(absl::Condition(&ready));
  if (!open_) return false;
  events->swap(events_);
  return true;
}

std::deque<Event> EventQueue::TakeNow() {
  absl::MutexLock lock(&mu_);
  return std::exchange(events_, {});
}

}  // namespace causeway::worker
