// POSIX sockets behind Status.
#include "causeway/callbacks/sockets.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace causeway::callbacks {
namespace {

template <typename Try>
absl::StatusOr<Socket> ForEachAddress(const std::string& host, int port, int flags,
                                      const char* what, Try attempt) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  const int failed = ::getaddrinfo(host.empty() ? nullptr : host.c_str(),
                                   absl::StrCat(port).c_str(), &hints, &found);
  std::string reason = failed != 0 ? ::gai_strerror(failed) : "no address";
  for (addrinfo* a = found; a != nullptr; a = a->ai_next) {
    Socket socket(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol));
    if (socket && attempt(socket.fd(), *a)) {
      ::freeaddrinfo(found);
      return socket;
    }
    reason = std::strerror(errno);
  }
  if (found != nullptr) ::freeaddrinfo(found);
  return absl::UnavailableError(
      absl::StrCat("cannot ", what, " ", host, ":", port, ": ", reason));
}

}  // namespace

Socket::~Socket() {
  if (fd_ >= 0) ::close(fd_);
}

absl::StatusOr<Socket> Listen(const std::string& host, int port) {
  return ForEachAddress(host, port, AI_PASSIVE, "listen on", [](int fd, const addrinfo& a) {
    const int on = 1, off = 0;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a.ai_family == AF_INET6) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    return ::bind(fd, a.ai_addr, a.ai_addrlen) == 0 && ::listen(fd, 256) == 0;
  });
}

absl::StatusOr<Socket> Connect(const std::string& host, int port) {
  return ForEachAddress(host, port, 0, "connect to", [](int fd, const addrinfo& a) {
    Configure(fd);
    return ::connect(fd, a.ai_addr, a.ai_addrlen) == 0;
  });
}

int LocalPort(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return ntohs(address.ss_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                   : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

void Configure(int fd) {
  auto set = [fd](int level, int name, int value) {
    ::setsockopt(fd, level, name, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 10);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set(IPPROTO_TCP, TCP_KEEPCNT, 4);
}

}  // namespace causeway::callbacks
