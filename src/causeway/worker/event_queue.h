// Events on their way to the head: in order, with confirmations merged.
#pragma once

#include <cstdint>
#include <deque>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "causeway/worker/commands.h"

namespace causeway::worker {

// Thread safety: thread-safe.
class EventQueue {
 public:
  // A stream takes events from now on, or does no longer; what waited is forgotten.
  void Open();
  void Close();
  // Dropped while no stream is open: the head asks anew whatever it still wants.
  void Put(Event event);
  // What there is now.
  std::deque<Event> TakeNow();
  // The first of them, about `bytes` on the wire, one at least.
  std::deque<Event> TakeSome(int64_t bytes);
  bool empty() const;

 private:
  mutable absl::Mutex mu_;
  std::deque<Event> events_ ABSL_GUARDED_BY(mu_);
  bool open_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace causeway::worker
