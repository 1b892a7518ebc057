// The head's end of the control stream: one link a worker, over gRPC.
//
//   Attach: Hello ---> sink.OnAttached ---> (refused: the call ends with the status)
//                         |
//              events ---> sink.OnEvent, in order      commands <--- WorkerLink, in order, batched
//                         |
//           stream over ---> sink.OnDetached, exactly once, after the last event
//   Bulk:   Hello with the token of the attachment; bytes of transfers leave through it
//
// A worker whose bulk stream ends is detached: bytes that were on their way are lost, and only a
// new life of the worker makes a clean start.
//
// Thread safety: all methods are thread-safe. No thread is held by a worker.
#pragma once

#include <memory>
#include <string>

#include "causeway/base/shared_memory.h"
#include "causeway/base/timers.h"
#include "causeway/core/worker_link.h"

namespace grpc {
class Service;
}

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
  // The sink, the folder, the timers and `deaths` must outlive the gRPC server that the service is
  // registered with. With `deaths` the sink hears of a worker's death from there, when that is
  // sooner.
  ControlService(core::WorkerSink& sink, Timers& timers, DataOptions data = {},
                 liveness::DeathWatch* deaths = nullptr);
  // The gRPC server must be shut down before.
  ~ControlService();
  ControlService(const ControlService&) = delete;
  ControlService& operator=(const ControlService&) = delete;

  // To be registered with a server builder; lives as long as this object.
  grpc::Service* service();
  // Closes every link, after what is queued on it, and refuses new workers with UNAVAILABLE.
  // Before the gRPC server's own Shutdown.
  void Shutdown(const std::string& reason);
  // Attached workers, for tests and metrics.
  int num_attached() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace causeway::controller
