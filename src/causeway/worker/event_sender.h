// Events on their way to the head, written by the threads that emit them.
//
// Whoever emits an event sends what waits, as far as the socket takes it; while it does so others
// only add theirs. When the socket is full, the rest is left to Drain(), on a thread of its own.
#pragma once

#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "causeway/net/sockets.h"
#include "causeway/worker/commands.h"
#include "causeway/worker/event_queue.h"

namespace causeway::worker {

// Thread safety: thread-safe.
class EventSender {
 public:
  // Events go to `socket` from now on, or nowhere; what waited is forgotten.
  void Open(std::shared_ptr<net::Socket> socket);
  void Close();
  // Dropped while nothing is open: the head asks anew whatever it still wants.
  void Emit(Event event);
  // The head is told, after what was emitted before, that this worker leaves, and why.
  void End(const absl::Status& why);
  // Blocks until Close, and sends what the socket did not take at once.
  void Drain();

 private:
  // Called by the one who set sending_, and until it is unset. False: the socket is full or gone.
  bool SendWhatWaits(int fd);
  void Pump();

  EventQueue queue_;
  absl::Mutex mu_;
  std::shared_ptr<net::Socket> socket_ ABSL_GUARDED_BY(mu_);  // null: closed
  bool sending_ ABSL_GUARDED_BY(mu_) = false;  // somebody sends, or Drain is to
  bool stuck_ ABSL_GUARDED_BY(mu_) = false;    // Drain is to
  absl::Status end_ ABSL_GUARDED_BY(mu_);      // not OK: to be sent when nothing else waits
  // Of the one who set sending_: encoded events and how much of them is sent.
  std::string out_;
  size_t sent_ = 0;
};

}  // namespace causeway::worker
