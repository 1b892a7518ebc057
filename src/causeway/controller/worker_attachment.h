// One attached worker: its outbox and the two connections that empty it.
//
// Commands leave on the thread that sends them, or that of a writer when they go to many workers
// (core/send_burst.h), as far as the socket takes them; the rest, and all that the bulk connection
// carries, leaves on the loops' threads. The readers of the connections
// (worker_connection.h) tell the attachment when they come and go.
//
// Thread safety: all methods are thread-safe; none blocks or calls the sink.
#pragma once

#include <atomic>
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
#include "causeway/controller/command_writer.h"
#include "causeway/controller/outbox.h"
#include "causeway/core/send_burst.h"
#include "causeway/core/worker_link.h"
#include "causeway/net/event_loop.h"
#include "causeway/net/frames.h"
#include "causeway/net/sockets.h"

namespace causeway::controller {

class WorkerAttachment : public core::WorkerLink,
                         public core::SendBurst::Link,
                         public std::enable_shared_from_this<WorkerAttachment> {
 public:
  enum class Lane { kCommands, kBulk };

  // What the worker and the head's memory have in common; borrowed.
  struct Options {
    const SharedFolder* folder = nullptr;  // null: no memory is shared
    std::string memory;                    // what a worker must see to share it
    bool checksums = false;                // transfers bear them
  };
  // The loops are those that read the worker's connections.
  WorkerAttachment(Timers& timers, Options options, net::EventLoop& commands, net::EventLoop& bulk,
                   std::shared_ptr<CommandWriter> writer, std::shared_ptr<net::Socket> socket);
  ~WorkerAttachment() override;
  // To be called before the attachment is given away.
  void SetWorkerMemory(const std::string& memory);

  // core::WorkerLink
  void Send(std::shared_ptr<const std::string> command) override;
  void SendSoon(std::shared_ptr<const std::string> command) override;
  void SendData(TransferId transfer, absl::StatusOr<absl::Cord> bytes) override;
  bool SendFile(TransferId transfer, const SharedFile& file, int64_t offset,
                int64_t bytes) override;
  void Close(absl::string_view reason) override;
  int64_t queued_bytes() const override;

  // core::SendBurst::Link
  void WriteQueued() override;
  bool HasAnswered() const override { return answered_; }
  void HandOver(CommandWriter::Links links) override;

  // Nothing leaves before this: the worker's answer to the first command may come on a connection
  // that only the admission makes known.
  void Admitted();
  // False when a bulk connection is there already or the worker is going.
  bool BulkCame(std::shared_ptr<net::Socket> socket);
  // The worker has sent an event.
  void Heard() { answered_ = true; }
  // The socket takes bytes again.
  void Writable(Lane lane);
  // The reader of the lane has come to its end; `lost`: without the worker's saying so. Nothing
  // more is written to the lane but the end with `status`.
  void Ended(Lane lane, bool lost, const absl::Status& status);
  std::string close_reason() const;

 private:
  struct Stream {
    std::shared_ptr<net::Socket> socket;  // null: gone, or not here yet
    net::EventLoop* loop = nullptr;
    net::FrameWriter writer;
    bool blocked = false;  // the socket is full; the loop tells when it is not
    bool pumping = false;  // the loop will pump
    bool ended = false;    // nothing is written any more
  };

  Stream& stream(Lane lane) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PumpCommands() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PumpBulk() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Has the bulk loop pump.
  void WakeBulk() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool Flush(Stream& stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void End(Stream& stream, const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CloseLocked(absl::string_view reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CutOff();

  Timers& timers_;
  const Options options_;
  const std::shared_ptr<CommandWriter> writer_;
  const std::string mark_;  // in the names of this worker's files
  mutable absl::Mutex mu_;
  Outbox outbox_ ABSL_GUARDED_BY(mu_);
  Stream attach_ ABSL_GUARDED_BY(mu_);
  Stream bulk_ ABSL_GUARDED_BY(mu_);
  bool shares_memory_ ABSL_GUARDED_BY(mu_) = false;
  bool admitted_ ABSL_GUARDED_BY(mu_) = false;
  std::atomic<bool> answered_{true};
  bool in_burst_ ABSL_GUARDED_BY(mu_) = false;  // somebody will call WriteQueued
  bool soon_ ABSL_GUARDED_BY(mu_) = false;  // the loop will pump the commands
  bool closing_ ABSL_GUARDED_BY(mu_) = false;
  std::string close_reason_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::controller
