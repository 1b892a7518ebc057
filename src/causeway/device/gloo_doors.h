// Ends the waits of a broken collective for connections that no peer is going to make.
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"

namespace causeway::device {

// A TCP socket of this process that listens.
struct ListeningSocket {
  sockaddr_storage address{};
  int port = 0;
};
std::vector<ListeningSocket> ListeningSockets();

// The listening sockets of one epoch's gloo, to which peers connect when a communicator is made.
//
// Of two members the one with the lower address waits until the other has connected and said which
// of the awaited connections it is: a number, counted from 0 for each listening socket. Where the
// other one has given up, there is nothing to cut, and gloo's own bound is half a minute. So this
// connects in its place, under one number after the other, and closes: the wait ends, and what is
// sent over that connection fails.
//
// Thread safety: thread-safe.
class GlooDoors {
 public:
  explicit GlooDoors(std::vector<ListeningSocket> doors) : doors_(std::move(doors)) {}

  // Connects under the next numbers. A connection that nobody awaits stays open in gloo until its
  // client goes, so this stops while the process has few descriptors left, and at a last number.
  // Returns how many connections were made.
  int Knock();

  // Whether a connection with this port at its other end was made here. It must not be shut down:
  // gloo asks for its addresses when it takes it over, and ends the process where there are none.
  bool Made(int peer_port) const;

 private:
  const std::vector<ListeningSocket> doors_;
  mutable absl::Mutex mu_;
  int64_t next_ ABSL_GUARDED_BY(mu_) = 0;
  absl::flat_hash_set<int> made_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::device
