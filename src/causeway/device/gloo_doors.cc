// The connections that end waits for connections.
#include "causeway/device/gloo_doors.h"

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>

#include "causeway/device/socket_abort.h"

namespace causeway::device {
namespace {

constexpr int64_t kNumbersAtOnce = 64;
constexpr int64_t kNumbersMax = 4096;
constexpr int64_t kSpareDescriptors = 256;  // gloo ends the process when it can accept no more
constexpr timeval kConnectMax = {.tv_sec = 0, .tv_usec = 50'000};

int64_t DescriptorsLeft() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  return static_cast<int64_t>(std::min<rlim_t>(limit.rlim_cur, 1 << 20)) -
         static_cast<int64_t>(OpenDescriptors().size());
}

}  // namespace

std::vector<ListeningSocket> ListeningSockets() {
  std::vector<ListeningSocket> found;
  for (const int fd : OpenDescriptors()) {
    int listens = 0;
    socklen_t size = sizeof(listens);
    if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens == 0) continue;
    ListeningSocket socket;
    size = sizeof(socket.address);
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&socket.address), &size) != 0) continue;
    socket.port = PortOf(socket.address);
    if (socket.port >= 0) found.push_back(socket);
  }
  return found;
}

int GlooDoors::Knock() {
  absl::MutexLock lock(&mu_);
  const int64_t doors = static_cast<int64_t>(doors_.size());
  const int64_t end = std::min(kNumbersMax, next_ + kNumbersAtOnce);
  if (DescriptorsLeft() < (end - next_) * doors + kSpareDescriptors) return 0;
  int count = 0;
  for (; next_ < end; ++next_) {
    for (const ListeningSocket& door : doors_) {
      const int fd = ::socket(door.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
      if (fd < 0) return count;
      (void)::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &kConnectMax, sizeof(kConnectMax));
      sockaddr_storage self{};
      socklen_t size = sizeof(self);
      const bool connected =
          ::connect(fd, reinterpret_cast<const sockaddr*>(&door.address), sizeof(door.address)) ==
              0 &&
          ::getsockname(fd, reinterpret_cast<sockaddr*>(&self), &size) == 0;
      if (connected) {
        made_.insert(PortOf(self));
        (void)::send(fd, &next_, sizeof(next_), MSG_NOSIGNAL);
        ++count;
      }
      ::close(fd);
      if (!connected) return count;  // the same number next time
    }
  }
  return count;
}

bool GlooDoors::Made(int peer_port) const {
  absl::MutexLock lock(&mu_);
  return made_.contains(peer_port);
}

}  // namespace causeway::device
