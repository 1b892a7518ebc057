// Unix sockets between processes of one user on one machine: a round trip costs half of TCP's.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "causeway/net/sockets.h"

namespace causeway::net {

// UNAVAILABLE where the environment says CAUSEWAY_LOCAL_SOCKET=off.
absl::Status LocalSocketsAllowed();
// Listening and non-blocking; the path must not be taken, and goes with its folder. UNAVAILABLE,
// INVALID_ARGUMENT for a path that is longer than such an address may be.
absl::StatusOr<Socket> ListenLocal(const std::string& path);
// Blocking, after at most `timeout`. As above; PERMISSION_DENIED when another user listens there.
absl::StatusOr<Socket> ConnectLocal(const std::string& path, absl::Duration timeout);
// PERMISSION_DENIED unless the process at the other end is of this process's user.
absl::Status CheckSameUser(int fd);

}  // namespace causeway::net
