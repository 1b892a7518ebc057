// The worker's end of the control stream: attaches to the head, reads commands, writes events.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "causeway/net/sockets.h"
#include "causeway/worker/commands.h"
#include "causeway/worker/event_sender.h"
#include "causeway/worker/head_connection.h"
#include "causeway/worker/operation_threads.h"

namespace causeway::worker {

// Thread safety: Emit is thread-safe; Run is called once and blocks.
class ControlClient {
 public:
  struct Options {
    std::string head;  // host:port
    Hello hello;
    absl::Duration connect_timeout;
    absl::Duration reattach_timeout;
  };
  // Called in stream order on the thread whose turn at reading it is; must not block for long. Data
  // of the bulk connection comes on a thread of its own, as Chunk commands.
  using OnCommand = std::function<void(Command)>;
  // Called for both connections, on their threads, when the head has been greeted.
  using OnConnected = std::function<void(const HeadConnection&)>;

  // Commands are read by `threads`, which must outlive this.
  ControlClient(Options options, OperationThreads* threads, OnCommand on_command,
                OnConnected on_connected);

  // Serves until the head says Shutdown (OK), refuses this worker (its status), or cannot be
  // reached for connect_timeout (at first) or reattach_timeout (later): UNAVAILABLE. After Leave it
  // does not attach again: CANCELLED.
  absl::Status Run();
  void Leave(const absl::Status& why) {
    leaving_ = true;
    events_.End(why);
  }

  // Sends an event to the head that this worker is attached to; dropped when it is to none.
  void Emit(Event event) { events_.Emit(std::move(event)); }

 private:
  absl::Status Serve(bool* attached);
  // False: nothing comes after it.
  bool OnMessage(absl::string_view bytes, const std::function<void(const Welcome&)>& on_welcome);

  Options options_;  // Run's, and the reader's while commands are read
  OperationThreads* const threads_;
  const OnCommand on_command_;
  const OnConnected on_connected_;
  bool shutdown_ = false;  // as options_
  std::atomic<bool> leaving_{false};
  EventSender events_;
};

}  // namespace causeway::worker
