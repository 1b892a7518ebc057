// A connection to the head: through its Unix socket where that leads to it, else over TCP.
//
// The head is found over TCP, so it is the one that the worker was told of. Where both see the same
// shared memory it says where its Unix socket is. A name that does not lead there, as between
// containers, is no failure: TCP is taken, and the reason kept.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "causeway/net/sockets.h"

namespace causeway::worker {

struct HeadConnection {
  net::Socket socket;  // blocking, without timeouts; nothing has been said on it
  std::string local;   // the path of the Unix socket; "" = TCP
  absl::Status why_tcp;
  // Head and worker share memory, so that the Unix socket could have been expected.
  bool fell_back = false;
};

// `head` is host:port, `memory` what this worker says of its shared memory ("" = none).
// UNAVAILABLE, DEADLINE_EXCEEDED when the head cannot be reached; or what it refuses with.
absl::StatusOr<HeadConnection> ConnectToHead(const std::string& head, const std::string& memory);

}  // namespace causeway::worker
