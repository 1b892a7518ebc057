// The worker's sentinel: a thread whose connection ends at the moment at which the process dies.
#pragma once

#include <string>

namespace causeway::liveness {

// Connects to the head's death watch at `address` (host:port) and names itself with `token`. The
// thread goes on until the head closes the connection or the process ends. Where the kernel gives
// it no descriptors of its own, or the head is out of reach, there is none: the death then shows on
// the control stream. Returns at once.
void StartSentinel(const std::string& address, const std::string& token);

}  // namespace causeway::liveness
