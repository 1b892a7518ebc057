// One attached worker: its outbox and the two streams that empty it.
//
// The reactors of the streams (control_service.cc) own themselves and tell the attachment when they
// come and go; the attachment never outlives its use of them.
//
// Thread safety: all methods are thread-safe; none blocks or calls the sink.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "causeway/base/shared_memory.h"
#include "causeway/base/timers.h"
#include "causeway/controller/outbox.h"
#include "causeway/core/worker_link.h"
#include "control.pb.h"

namespace causeway::controller {

using WorkerReactor = grpc::ServerBidiReactor<control::FromWorker, control::ToWorker>;

class WorkerAttachment : public core::WorkerLink,
                         public std::enable_shared_from_this<WorkerAttachment> {
 public:
  enum class Lane { kCommands, kBulk };

  // What the worker and the head's memory have in common; borrowed.
  struct Options {
    const SharedFolder* folder = nullptr;  // null: no memory is shared
    std::string memory;                    // what a worker must see to share it
    bool checksums = false;                // transfers bear them
  };
  ~WorkerAttachment() override;
  WorkerAttachment(Timers& timers, Options options, WorkerReactor* attach,
                   grpc::CallbackServerContext* context);
  // To be called before the attachment is given away.
  void SetWorkerMemory(const std::string& memory);

  // core::WorkerLink
  void Send(std::shared_ptr<const std::string> command) override;
  void SendData(TransferId transfer, absl::StatusOr<absl::Cord> bytes) override;
  bool SendFile(TransferId transfer, const SharedFile& file, int64_t offset,
                int64_t bytes) override;
  void Close(absl::string_view reason) override;
  int64_t queued_bytes() const override;

  // Nothing leaves before this: the worker's answer to the first command may come on a stream that
  // only the admission makes known.
  void Admitted();
  // False when a bulk stream is there already or the worker is going.
  bool BulkCame(WorkerReactor* bulk, grpc::CallbackServerContext* context);
  void Wrote(Lane lane, bool ok);
  // The stream is broken or over; ends the call with `status` unless it has ended.
  void End(Lane lane, const grpc::Status& status);
  // The reactor is about to be deleted.
  void Gone(Lane lane);
  std::string close_reason() const;

 private:
  struct Stream {
    WorkerReactor* reactor = nullptr;  // null: gone, or not here yet
    grpc::CallbackServerContext* context = nullptr;
    bool writing = false;
    bool broken = false;    // no more writes
    bool finished = false;  // Finish was called
    int64_t in_flight = 0;
    control::ToWorker message;  // being written
  };

  Stream& stream(Lane lane) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Write(Stream& stream, Outbox::Batch batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Finish(Stream& stream, const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CloseLocked(absl::string_view reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CutOff();

  Timers& timers_;
  const Options options_;
  const std::string mark_;  // in the names of this worker's files
  mutable absl::Mutex mu_;
  Outbox outbox_ ABSL_GUARDED_BY(mu_);
  Stream attach_ ABSL_GUARDED_BY(mu_);
  Stream bulk_ ABSL_GUARDED_BY(mu_);
  bool shares_memory_ ABSL_GUARDED_BY(mu_) = false;
  bool admitted_ ABSL_GUARDED_BY(mu_) = false;
  bool closing_ ABSL_GUARDED_BY(mu_) = false;
  std::string close_reason_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::controller
