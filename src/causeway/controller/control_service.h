// The head's end of the control stream: one link a worker, over connections of its own.
//
//   kAttach: Hello ---> sink.OnAttached ---> (refused: the connection ends with the status)
//                          |
//               events ---> sink.OnEvent, in order      commands <--- WorkerLink, in order
//                          |
//       connection over ---> sink.OnDetached, exactly once, after the last event
//   kBulk:   Hello with the token of the attachment; bytes of transfers leave through it
//
// A worker whose bulk connection ends is detached: bytes that were on their way are lost, and only
// a new life of the worker makes a clean start.
//
// One thread reads all control connections and calls the sink; commands are written by the threads
// that send them or, when they go to many workers at once (core/send_burst.h), by one more. Another
// thread serves the bulk connections.
//
// Thread safety: all methods are thread-safe. No thread is held by a worker.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "causeway/base/shared_memory.h"
#include "causeway/base/timers.h"
#include "causeway/core/worker_link.h"

namespace causeway::liveness {
class DeathWatch;
}

namespace causeway::controller {

// Memory that the head shares with the workers of its machine, and how bytes are sent.
struct DataOptions {
  const SharedFolder* folder = nullptr;  // null: none
  bool checksums = false;                // transfers bear them
};

class ControlService {
 public:
  // The sink, the folder, the timers and `deaths` must outlive the service. With `deaths` the sink
  // hears of a worker's death from there, when that is sooner.
  ControlService(core::WorkerSink& sink, Timers& timers, DataOptions data = {},
                 liveness::DeathWatch* deaths = nullptr);
  // Stops at once.
  ~ControlService();
  ControlService(const ControlService&) = delete;
  ControlService& operator=(const ControlService&) = delete;

  // Serves when it returns OK; to be called once. port 0 = any free one. UNAVAILABLE when the
  // address cannot be had. Workers that share the folder's memory are told of a Unix socket in it.
  absl::Status Listen(const std::string& host, int port);
  int port() const;
  // Closes every link, after what is queued on it, and refuses new workers with UNAVAILABLE.
  void Shutdown(const std::string& reason);
  // Waits until the connections have ended, but no longer than `patience`. When it returns, nothing
  // of the service calls the sink or the death watch any more.
  void Stop(absl::Duration patience);
  // Attached workers, for tests and metrics.
  int num_attached() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace causeway::controller
