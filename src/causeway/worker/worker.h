// The worker process: threads and streams around the graph and the device.
//
//   control stream --commands--> two threads: one reads and runs --launches--> device
//                                 |  abort, compile, ping at once  ^                |
//                                 v                                | posts          v
//                  compile pool, transfer assembler ---------------+-- watchers (completions),
//                                                                      wait pool (bytes)
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "causeway/device/device.h"
#include "causeway/worker/fault_plan.h"

namespace causeway::worker {

struct WorkerOptions {
  std::string head;  // host:port
  int worker = 0;
  // Takes any place, also later; `worker` is the one that it would rather have, -1 = none.
  bool spare = false;
  int data_port = 0;
  std::string host;  // address that peers reach this one at; "" = found by the route to the head
  absl::Duration connect_timeout = absl::Seconds(30);
  absl::Duration reattach_timeout = absl::Seconds(60);
  FaultPlan faults;
};

// Makes the device. `is_ours(local port, peer port)` tells the worker's own connections from those
// of collectives; it is valid as long as the worker runs.
using DeviceFactory = std::function<absl::StatusOr<std::unique_ptr<device::Device>>(
    std::function<bool(int local_port, int peer_port)> is_ours)>;

// Serves the head until it says Shutdown: OK. An error says why the worker could not start or go
// on. Blocks; may be called several times at once in one process (tests).
absl::Status RunWorker(const WorkerOptions& options, const DeviceFactory& make_device);

}  // namespace causeway::worker
