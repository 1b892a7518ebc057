// The seam between the controller and the transport that reaches its workers.
//
// The head's control service (controller/control_service.h) implements WorkerLink for each attached
// worker and reports to a WorkerSink; the simulator implements both over virtual time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "causeway/base/shared_memory.h"
#include "causeway/base/strong_id.h"

namespace causeway::core {

// One attached worker, seen from the head. Thread safety: all methods are thread-safe, never block
// and never call back into the sink.
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  // Queues one encoded Command (wire/control_codec.h) behind all earlier ones. The bytes may be
  // shared with other workers. Dropped silently once the worker is gone.
  virtual void Send(std::shared_ptr<const std::string> command) = 0;
  // The same for what nobody waits for: it leaves with the next command, or a little later.
  virtual void SendSoon(std::shared_ptr<const std::string> command) { Send(std::move(command)); }
  // Queues bytes of a transfer beside the command stream; chunks of one transfer stay in order.
  virtual void SendData(TransferId transfer, absl::StatusOr<absl::Cord> bytes) = 0;
  // The same for `bytes` bytes from `offset` on in a file of shared memory, without copying them.
  // False: this worker cannot be given files, or not just now.
  virtual bool SendFile(TransferId transfer, const SharedFile& file, int64_t offset,
                        int64_t bytes) {
    return false;
  }
  // Ends the connections after what is queued; the sink hears OnDetached.
  virtual void Close(absl::string_view reason) = 0;
  // Bytes queued here and not yet taken by the network.
  virtual int64_t queued_bytes() const = 0;
};

// What a worker says of itself when it attaches.
struct WorkerHello {
  WorkerId worker;
  int pid = 0;
  std::string host;
  std::string data_address;
  std::string platform;
  std::string device_kind;
  std::vector<std::string> memory_kinds;
  std::string runtime_version;
  std::string memory;          // which shared memory it sees; "" = none
  std::string compile_target;  // what else compiled code depends on here; opaque
  int num_devices = 0;
  // Any place will do, also none for now. `worker` is the one that it would rather have, or -1.
  bool spare = false;
};

// What the controller answers: the worker's life has a number, and a secret for its other streams.
struct WorkerAdmission {
  Incarnation incarnation;
  std::string token;
};

// Implemented by the controller. Calls for one worker come one at a time and in order; calls for
// different workers may come at once.
class WorkerSink {
 public:
  virtual ~WorkerSink() = default;
  // FAILED_PRECONDITION (say why) refuses the worker. On success the link may be used at once. A
  // spare keeps the number that its Hello gave in later calls; its incarnation tells who it is.
  virtual absl::StatusOr<WorkerAdmission> OnAttached(const WorkerHello& hello,
                                                     std::shared_ptr<WorkerLink> link) = 0;
  // One serialized control::Event.
  virtual void OnEvent(WorkerId worker, Incarnation incarnation, absl::string_view event) = 0;
  // The stream is over; `why` says how ("stream closed", "connection reset").
  virtual void OnDetached(WorkerId worker, Incarnation incarnation, const std::string& why) = 0;
};

}  // namespace causeway::core
