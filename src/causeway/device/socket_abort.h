// Cuts the TCP connections of this process that nobody claims: those of a broken collective.
#pragma once

#include <sys/socket.h>

#include <functional>
#include <vector>

namespace causeway::device {

enum class Cut {
  // What is received ends; what is sent goes on, so that gloo, which answers what it has just
  // received, need not queue its answers.
  kReading,
  kBoth,
};

// Shuts down every established TCP connection of this process for which `is_ours(local port, peer
// port)` is false. Descriptors stay open (their owner closes them). Returns how many were cut.
// Thread safety: may be called from any thread; listening sockets are never touched.
int ShutDownForeignConnections(const std::function<bool(int local_port, int peer_port)>& is_ours,
                               Cut cut);

// All descriptors of this process.
std::vector<int> OpenDescriptors();

// Port of an IP address, or -1 for other families.
int PortOf(const sockaddr_storage& address);

}  // namespace causeway::device
