// Unix sockets behind Status.
#include "causeway/net/local_sockets.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "causeway/base/status_macros.h"

namespace causeway::net {
namespace {

absl::StatusOr<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address{};
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", path, "\" is no name for a Unix socket: it must have 1 to ",
                     sizeof address.sun_path - 1, " bytes"));
  }
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

absl::Status Failed(const char* what, const std::string& path) {
  // What a full queue of connections answers after the socket's timeout.
  const char* const why = errno == EAGAIN ? "nobody takes the connection" : std::strerror(errno);
  return absl::UnavailableError(absl::StrCat("cannot ", what, " ", path, ": ", why));
}

}  // namespace

absl::Status LocalSocketsAllowed() {
  const char* const wanted = std::getenv("CAUSEWAY_LOCAL_SOCKET");
  if (wanted == nullptr || absl::string_view(wanted) != "off") return absl::OkStatus();
  return absl::UnavailableError("CAUSEWAY_LOCAL_SOCKET=off switches Unix sockets off");
}

absl::StatusOr<Socket> ListenLocal(const std::string& path) {
  ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(path));
  Socket socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket ||
      ::bind(socket.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(socket.fd(), SOMAXCONN) != 0) {
    return Failed("listen on", path);
  }
  return socket;
}

absl::StatusOr<Socket> ConnectLocal(const std::string& path, absl::Duration timeout) {
  ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(path));
  Socket socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return Failed("connect to", path);
  RETURN_IF_ERROR(SetTimeouts(socket.fd(), timeout, absl::ZeroDuration()));
  if (::connect(socket.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return Failed("connect to", path);
  }
  RETURN_IF_ERROR(SetTimeouts(socket.fd(), absl::ZeroDuration(), absl::ZeroDuration()));
  RETURN_IF_ERROR(CheckSameUser(socket.fd()));
  return socket;
}

absl::Status CheckSameUser(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat("the socket does not say whose its other end is: ", std::strerror(errno)));
  }
  if (peer.uid == ::geteuid()) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("process ", peer.pid, " at the other end is of ",
                                                  "user ", peer.uid, ", this one of ",
                                                  ::geteuid()));
}

}  // namespace causeway::net
