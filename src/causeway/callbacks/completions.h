// Runs completions of calls on as many threads as they need, never on one that others depend on.
//
// XLA runs the rest of a device's program inside the call that completes a future, and that may
// wait in a collective for another device's completion. So every queued completion gets a thread at
// once: an idle one, or a new one. Their number is bounded by the number of calls in flight.
#pragma once

#include <deque>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"

namespace causeway::callbacks {

// Thread safety: all methods may be called from any thread. Never destroyed: its threads are XLA's
// for as long as the process lives.
class Completions {
 public:
  void Add(absl::AnyInvocable<void() &&> completion);

 private:
  void Work();

  absl::Mutex mu_;
  std::deque<absl::AnyInvocable<void() &&>> queue_ ABSL_GUARDED_BY(mu_);
  size_t idle_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace causeway::callbacks
