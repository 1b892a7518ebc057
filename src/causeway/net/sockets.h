// TCP sockets behind Status: owned descriptors, listening, connecting, whole blocks of bytes.
#pragma once

#include <sys/uio.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace causeway::net {

// An owned descriptor.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Socket();
  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

struct Address {
  std::string host;  // without the brackets of an IPv6 address
  int port = 0;
};
// "host:port" or "[v6]:port". INVALID_ARGUMENT for anything else.
absl::StatusOr<Address> ParseAddress(absl::string_view text);

// Listening and non-blocking; host "" = every address. UNAVAILABLE with the address in the text.
absl::StatusOr<Socket> Listen(const std::string& host, int port);
// Blocking, after at most `timeout`, and configured. UNAVAILABLE with the address in the text.
absl::StatusOr<Socket> Connect(const std::string& host, int port,
                               absl::Duration timeout = absl::Seconds(30));
// One waiting connection of any kind, blocking and configured. UNAVAILABLE when none waits,
// RESOURCE_EXHAUSTED when the process has no descriptor for it.
absl::StatusOr<Socket> Accept(int listener);
int LocalPort(int fd);
// "host:port" of the other end, or its process behind a Unix socket, for messages.
std::string PeerName(int fd);

// No delay; a peer that has been silent for about half a minute is gone.
void Configure(int fd);
absl::Status SetBlocking(int fd, bool blocking);
// How long a blocking call waits for the peer to take or to send anything at all.
absl::Status SetTimeouts(int fd, absl::Duration send, absl::Duration receive);

// Blocking: all of the pieces, in order. The entries of `pieces` are used up. DEADLINE_EXCEEDED
// when the peer took nothing within the socket's timeout, UNAVAILABLE when it is gone.
absl::Status SendAll(int fd, absl::Span<iovec> pieces);
absl::Status SendAll(int fd, absl::string_view bytes);
// Blocking: exactly `size` bytes. OUT_OF_RANGE when the peer ended the stream before the first one,
// UNAVAILABLE when it did so later or is gone, DEADLINE_EXCEEDED as above.
absl::Status ReceiveAll(int fd, void* to, size_t size);

}  // namespace causeway::net
