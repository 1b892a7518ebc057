// The few socket calls that the relay and the worker's link share.
#pragma once

#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace causeway::callbacks {

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

// Listening and non-blocking; host "" = every address. UNAVAILABLE with the address in the text.
absl::StatusOr<Socket> Listen(const std::string& host, int port);
// Blocking. UNAVAILABLE with the address in the text.
absl::StatusOr<Socket> Connect(const std::string& host, int port);
int LocalPort(int fd);

// No delay; a peer that has been silent or has taken nothing for about half a minute is gone.
void Configure(int fd);

}  // namespace causeway::callbacks
