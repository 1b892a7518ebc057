// The worker's end of the control stream: attaches to the head, reads commands, writes events.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "causeway/worker/commands.h"
#include "causeway/worker/event_queue.h"

namespace causeway::worker {

// Thread safety: Emit and Stop are thread-safe; Run is called once and blocks.
class ControlClient {
 public:
  struct Options {
    std::string head;  // host:port
    Hello hello;
    absl::Duration connect_timeout;
    absl::Duration reattach_timeout;
  };
  // Called on the reading thread, in stream order; must not block for long. Data of the bulk
  // stream comes on a thread of its own, as Chunk commands.
  using OnCommand = std::function<void(Command)>;

  ControlClient(Options options, OnCommand on_command);

  // Serves until the head says Shutdown (OK), refuses this worker (its status), or cannot be
  // reached for connect_timeout (at first) or reattach_timeout (later): UNAVAILABLE.
  absl::Status Run();

  // Queues an event for the stream that is attached now; dropped when none is.
  void Emit(Event event) { events_.Put(std::move(event)); }

 private:
  absl::Status Serve(bool* attached);

  Options options_;  // the reading thread's
  const OnCommand on_command_;
  std::atomic<bool> shutdown_{false};
  EventQueue events_;
};

}  // namespace causeway::worker
