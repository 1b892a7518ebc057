// The head's end of the workers' sentinels: reports when one's connection ends.
//
// Thread safety: all methods are thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace causeway::liveness {

class DeathWatch {
 public:
  // Listens on a port of the system's choice and serves on a thread of its own.
  static absl::StatusOr<std::unique_ptr<DeathWatch>> Start(const std::string& host);
  ~DeathWatch();
  DeathWatch(const DeathWatch&) = delete;
  DeathWatch& operator=(const DeathWatch&) = delete;

  int port() const;
  // When the connection that has shown `token` ends, `on_end` is called, once, on the watch's
  // thread. It must not block.
  void Expect(const std::string& token, std::function<void()> on_end);
  // Nothing is called for it any more; its connection is closed.
  void Forget(const std::string& token);

 private:
  class Impl;
  explicit DeathWatch(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace causeway::liveness
