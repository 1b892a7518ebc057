// A detached thread with a table of descriptors of its own.
#include "causeway/liveness/sentinel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "causeway/base/log.h"
#include "causeway/net/sockets.h"

namespace causeway::liveness {
namespace {

void Stand(const std::string& host, int port, const std::string& line) {
  ::pthread_setname_np(::pthread_self(), "sentinel");
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  // From here on this thread shares no descriptor with the others, so the kernel closes its own as
  // soon as the thread is ended, without waiting for the process's memory to be taken apart. The
  // copies of the others' go: a connection that they close must not be kept open here.
  if (::unshare(CLONE_FILES) != 0) {
    LOG(WARNING) << "no sentinel: unshare: " << std::strerror(errno);
    return;
  }
  ::close_range(0, ~0u, 0);
  const absl::StatusOr<net::Socket> head = net::Connect(host, port);
  if (!head.ok() || ::send(head->fd(), line.data(), line.size(), MSG_NOSIGNAL) !=
                        static_cast<ssize_t>(line.size())) {
    return;  // nor can it be logged: standard error is closed here
  }
  char ignored;
  while (true) {
    const ssize_t size = ::recv(head->fd(), &ignored, 1, 0);
    if (size == 0 || (size < 0 && errno != EINTR)) return;
  }
}

}  // namespace

void StartSentinel(const std::string& address, const std::string& token) {
  absl::StatusOr<net::Address> head = net::ParseAddress(address);
  if (!head.ok()) return;
  std::thread([head = *std::move(head), line = token + "\n"] {
    Stand(head.host, head.port, line);
  }).detach();
}

}  // namespace causeway::liveness
