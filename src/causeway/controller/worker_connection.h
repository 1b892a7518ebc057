// The reader of one connection from a worker: who it is, its events, its end.
//
//   new --kAskLocal----------> told where the Unix socket is; still new
//    |  --kAttach, admitted--> commands --end--> gone
//    |  --kBulk, joined------> bulk ------end--> gone
//    +--anything else--------> told why; what still comes is thrown away until it ends
//
// Thread safety: the loop's own thread calls it; CutOff is thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "causeway/controller/worker_attachment.h"
#include "causeway/core/worker_link.h"
#include "causeway/net/event_loop.h"
#include "causeway/net/frames.h"
#include "causeway/net/sockets.h"
#include "causeway/wire/control_frames.h"

namespace causeway::liveness {
class DeathWatch;
}

namespace causeway::controller {

// What the connections of all workers share. The sink and the death watch are called only from the
// loops' threads, so they are done with when the loops have ended.
struct WorkerDoor {
  core::WorkerSink* sink = nullptr;
  Timers* timers = nullptr;
  WorkerAttachment::Options data;
  // Where workers that share the head's memory reach it, too; or why nowhere.
  absl::StatusOr<std::string> local_socket = absl::UnavailableError("the head does not serve yet");
  liveness::DeathWatch* deaths = nullptr;  // may be null
  net::EventLoop* commands = nullptr;
  net::EventLoop* bulk = nullptr;
  std::shared_ptr<CommandWriter> writer;  // attachments may outlive it

  absl::Mutex mu;
  bool shut_down ABSL_GUARDED_BY(mu) = false;  // nobody is admitted any more
  bool stopped ABSL_GUARDED_BY(mu) = false;    // the loops go
  int connections ABSL_GUARDED_BY(mu) = 0;
  absl::flat_hash_map<std::string, std::shared_ptr<WorkerAttachment>> by_token ABSL_GUARDED_BY(mu);
};

class WorkerConnection : public net::EventLoop::Handler,
                         public std::enable_shared_from_this<WorkerConnection> {
 public:
  // Counts itself in door.connections.
  WorkerConnection(std::shared_ptr<WorkerDoor> door, net::Socket socket);
  ~WorkerConnection() override;
  // On the commands' loop: reads from now on, and expects Hello within a bound.
  absl::Status Start();

  void OnReadable() override;
  void OnWritable() override;
  // Ends the connection if it has not said who it is.
  void CutOffIfNew();

 private:
  enum class State { kNew, kCommands, kBulk, kRefused, kGone };

  void OnFrames();
  // Not OK: the connection is refused with it.
  absl::Status OnFrame(const net::Frame& frame);
  absl::Status Begin(const net::Frame& frame);
  void TellLocalSocket(absl::string_view memory);
  void Say(wire::ControlFrame kind, std::shared_ptr<const std::string> payload);
  absl::Status Admit(const core::WorkerHello& hello);
  absl::Status Join(const std::string& token);
  void MoveToBulkLoop();
  void Refuse(const absl::Status& why);
  void Over(bool lost);
  void Detach(bool lost);

  const std::shared_ptr<WorkerDoor> door_;
  const std::shared_ptr<net::Socket> socket_;
  net::EventLoop* loop_;  // that reads it
  net::FrameReader reader_;
  std::atomic<State> state_{State::kNew};
  std::shared_ptr<WorkerAttachment> attachment_;
  WorkerId worker_;
  core::WorkerAdmission admission_;
  std::string farewell_;  // why it says it goes
  // Of a worker on this machine: its end can be asked of the kernel.
  int pid_ = 0;
  uint64_t process_start_ = 0;
};

}  // namespace causeway::controller
