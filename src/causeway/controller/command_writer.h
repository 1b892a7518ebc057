// The thread that writes to many workers: round after round of all that have something queued.
//
// Thread safety: all methods are thread-safe.
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "causeway/core/send_burst.h"

namespace causeway::controller {

class CommandWriter {
 public:
  using Links = std::vector<std::shared_ptr<core::SendBurst::Link>>;

  CommandWriter();
  // Stops.
  ~CommandWriter();
  CommandWriter(const CommandWriter&) = delete;
  CommandWriter& operator=(const CommandWriter&) = delete;

  // Has their WriteQueued called, in this order and behind those of earlier calls; not at all when
  // it is stopped.
  void Write(Links links);
  // Drops what waits; when it returns, the thread has ended. Not on that thread.
  void Stop();

 private:
  void Loop();

  absl::Mutex mu_;
  Links waiting_ ABSL_GUARDED_BY(mu_);
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace causeway::controller
