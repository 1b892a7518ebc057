// Threads for work that blocks: waiting for values, compiling. Grows on demand up to a limit.
#pragma once

#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace causeway::worker {

// Thread safety: thread-safe. Work that does not find a free thread waits in order. The destructor
// drops queued work and waits for running work.
class WaitPool {
 public:
  explicit WaitPool(int max_threads) : max_threads_(max_threads) {}
  ~WaitPool();
  void Submit(absl::AnyInvocable<void()> work);
  // Waits until nothing is queued or running. False after `timeout`.
  bool WaitIdle(absl::Duration timeout);

 private:
  void Loop();

  const int max_threads_;
  absl::Mutex mu_;
  std::deque<absl::AnyInvocable<void()>> queue_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mu_);
  int idle_ ABSL_GUARDED_BY(mu_) = 0;
  int running_ ABSL_GUARDED_BY(mu_) = 0;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace causeway::worker
