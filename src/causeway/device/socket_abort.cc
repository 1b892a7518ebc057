// The scan of /proc/self/fd behind ShutDownForeignConnections.
#include "causeway/device/socket_abort.h"

#include <dirent.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdlib>
#include <vector>

namespace causeway::device {

int PortOf(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  }
  if (address.ss_family == AF_INET6) {
    return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  }
  return -1;
}

std::vector<int> OpenDescriptors() {
  std::vector<int> fds;
  DIR* directory = ::opendir("/proc/self/fd");
  if (directory == nullptr) return fds;
  while (const dirent* entry = ::readdir(directory)) {
    if (entry->d_name[0] != '.') fds.push_back(std::atoi(entry->d_name));
  }
  ::closedir(directory);
  return fds;
}

int ShutDownForeignConnections(const std::function<bool(int, int)>& is_ours, Cut cut) {
  const int how = cut == Cut::kReading ? SHUT_RD : SHUT_RDWR;
  int count = 0;
  for (const int fd : OpenDescriptors()) {
    sockaddr_storage local{}, peer{};
    socklen_t size = sizeof(local);
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&local), &size) != 0) continue;
    size = sizeof(peer);
    if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) continue;
    const int local_port = PortOf(local), peer_port = PortOf(peer);
    if (local_port < 0 || peer_port < 0) continue;
    int type = 0;
    size = sizeof(type);
    if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM) continue;
    if (is_ours(local_port, peer_port)) continue;
    if (::shutdown(fd, how) == 0) ++count;
  }
  return count;
}

}  // namespace causeway::device
