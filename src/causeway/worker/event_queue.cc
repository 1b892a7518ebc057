// Merging of confirmations, and what a stream's end forgets.
#include "causeway/worker/event_queue.h"

#include <algorithm>
#include <utility>
#include <variant>

namespace causeway::worker {
namespace {

int64_t WeightOf(const Event& event) {
  const auto* data = std::get_if<FetchData>(&event);
  return data != nullptr ? data->size + 64 : 256;
}

}  // namespace

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

std::deque<Event> EventQueue::TakeNow() {
  absl::MutexLock lock(&mu_);
  return std::exchange(events_, {});
}

std::deque<Event> EventQueue::TakeSome(int64_t bytes) {
  absl::MutexLock lock(&mu_);
  std::deque<Event> taken;
  while (!events_.empty() && bytes > 0) {
    bytes -= WeightOf(events_.front());
    taken.push_back(std::move(events_.front()));
    events_.pop_front();
  }
  return taken;
}

bool EventQueue::empty() const {
  absl::MutexLock lock(&mu_);
  return events_.empty();
}

}  // namespace causeway::worker
