// POSIX sockets behind Status.
#include "causeway/net/sockets.h"

#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace causeway::net {
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
    Socket socket(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                           a->ai_protocol));
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

// Of a non-blocking connect that is under way; sets errno.
bool Connected(int fd, absl::Time deadline) {
  pollfd wait{fd, POLLOUT, 0};
  int ready;
  do {
    const absl::Duration left = std::max(deadline - absl::Now(), absl::ZeroDuration());
    ready = ::poll(&wait, 1, static_cast<int>(std::min<int64_t>(
                                 absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1))),
                                 INT_MAX)));
  } while (ready < 0 && errno == EINTR);
  if (ready < 0) return false;
  int error = ETIMEDOUT;
  socklen_t size = sizeof error;
  if (ready > 0 && ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return false;
  errno = error;
  return error == 0;
}

absl::Status Broken(const char* what) {
  const int error = errno;
  if (error == EAGAIN || error == EWOULDBLOCK) {
    return absl::DeadlineExceededError(absl::StrCat("the peer does not ", what));
  }
  return absl::UnavailableError(
      absl::StrCat("the connection to the peer is lost: ", std::strerror(error)));
}

absl::Status SetTimeout(int fd, int name, absl::Duration timeout) {
  const timeval value = absl::ToTimeval(timeout);
  if (::setsockopt(fd, SOL_SOCKET, name, &value, sizeof value) == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("setsockopt: ", std::strerror(errno)));
}

}  // namespace

Socket::~Socket() {
  if (fd_ >= 0) ::close(fd_);
}

absl::StatusOr<Address> ParseAddress(absl::string_view text) {
  const size_t colon = text.rfind(':');
  Address address;
  if (colon != absl::string_view::npos && colon > 0 &&
      absl::SimpleAtoi(text.substr(colon + 1), &address.port) && address.port > 0 &&
      address.port < 65536) {
    absl::string_view host = text.substr(0, colon);
    if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
    address.host = std::string(host);
    return address;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is no address; it has to be HOST:PORT"));
}

absl::StatusOr<Socket> Listen(const std::string& host, int port) {
  return ForEachAddress(host, port, AI_PASSIVE, "listen on", [](int fd, const addrinfo& a) {
    const int on = 1, off = 0;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a.ai_family == AF_INET6) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    return ::bind(fd, a.ai_addr, a.ai_addrlen) == 0 && ::listen(fd, SOMAXCONN) == 0;
  });
}

absl::StatusOr<Socket> Connect(const std::string& host, int port, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  return ForEachAddress(host, port, 0, "connect to", [deadline](int fd, const addrinfo& a) {
    Configure(fd);
    if (::connect(fd, a.ai_addr, a.ai_addrlen) != 0 &&
        (errno != EINPROGRESS || !Connected(fd, deadline))) {
      return false;
    }
    return SetBlocking(fd, true).ok();
  });
}

absl::StatusOr<Socket> Accept(int listener) {
  Socket socket(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket) {
    const int error = errno;
    const std::string text = absl::StrCat("cannot accept a connection: ", std::strerror(error));
    if (error != EMFILE && error != ENFILE) return absl::UnavailableError(text);
    return absl::ResourceExhaustedError(
        absl::StrCat(text, "; raise the limit of open files (ulimit -n)"));
  }
  Configure(socket.fd());
  return socket;
}

int LocalPort(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return ntohs(address.ss_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                   : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

std::string PeerName(int fd) {
  sockaddr_storage address{};
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  socklen_t size = sizeof address;
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (::getpeername(fd, generic, &size) != 0) return "an unknown address";
  ucred peer{};
  socklen_t peer_size = sizeof peer;
  if (address.ss_family == AF_UNIX &&
      ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_size) == 0) {
    return absl::StrCat("process ", peer.pid, " of this machine");
  }
  if (::getnameinfo(generic, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "an unknown address";
  }
  return absl::StrCat(host, ":", port);
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

absl::Status SetBlocking(int fd, bool blocking) {
  const int flags = ::fcntl(fd, F_GETFL);
  const int wanted = blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK;
  if (flags >= 0 && ::fcntl(fd, F_SETFL, wanted) == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("fcntl: ", std::strerror(errno)));
}

absl::Status SetTimeouts(int fd, absl::Duration send, absl::Duration receive) {
  absl::Status status = SetTimeout(fd, SO_SNDTIMEO, send);
  status.Update(SetTimeout(fd, SO_RCVTIMEO, receive));
  return status;
}

absl::Status SendAll(int fd, absl::Span<iovec> pieces) {
  while (!pieces.empty()) {
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = std::min<size_t>(pieces.size(), IOV_MAX);
    ssize_t sent = ::sendmsg(fd, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return Broken("take what is sent to it");
    while (!pieces.empty() && static_cast<size_t>(sent) >= pieces.front().iov_len) {
      sent -= static_cast<ssize_t>(pieces.front().iov_len);
      pieces.remove_prefix(1);
    }
    if (pieces.empty()) break;
    pieces.front().iov_base = static_cast<char*>(pieces.front().iov_base) + sent;
    pieces.front().iov_len -= static_cast<size_t>(sent);
  }
  return absl::OkStatus();
}

absl::Status SendAll(int fd, absl::string_view bytes) {
  iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
  return SendAll(fd, absl::MakeSpan(&piece, 1));
}

absl::Status ReceiveAll(int fd, void* to, size_t size) {
  size_t have = 0;
  while (have < size) {
    const ssize_t received =
        ::recv(fd, static_cast<char*>(to) + have, size - have, MSG_WAITALL);
    if (received < 0 && errno == EINTR) continue;
    if (received < 0) return Broken("send what is waited for");
    if (received == 0 && have == 0) return absl::OutOfRangeError("the peer ended the stream");
    if (received == 0) {
      return absl::UnavailableError("the peer ended the stream in the middle of a message");
    }
    have += static_cast<size_t>(received);
  }
  return absl::OkStatus();
}

}  // namespace causeway::net
