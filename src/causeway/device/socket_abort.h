// Cuts the TCP connections of this process that nobody claims: those of a broken collective.
#pragma once

#include <functional>

namespace causeway::device {

// Shuts down every established TCP connection of this process for which `is_ours(local port, peer
// port)` is false. Descriptors stay open (their owner closes them). Returns how many were cut.
// Thread safety: may be called from any thread; listening sockets are never touched.
int ShutDownForeignConnections(const std::function<bool(int local_port, int peer_port)>& is_ours);

}  // namespace causeway::device
