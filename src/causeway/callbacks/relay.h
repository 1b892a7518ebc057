// The head's side of host callbacks: one listener that joins workers' calls with clients' answers.
//
//   ASSIGN_OR_RETURN(auto relay, Relay::Start({.host = "0.0.0.0", .port = 0}));
//   client_attributes["causeway_callback_port"] = relay->port();   // in the proxy's options
//   ... workers get --callbacks=HOST:PORT ...
//   relay->ProgramGone(token, group);   // when a program found by FindGroup has no handle any more
//
// Thread safety: all methods may be called from any thread; one thread of its own does the work.
// The destructor closes all connections: workers' calls then fail with UNAVAILABLE.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "causeway/callbacks/router.h"

namespace causeway::callbacks {

struct RelayOptions {
  std::string host = "127.0.0.1";  // numeric address to listen on; "" = all, IPv6 and IPv4
  int port = 0;                    // 0 = any free one
  absl::Duration release_grace = absl::Seconds(kReleaseGraceSeconds);
};

class Relay {
 public:
  // UNAVAILABLE when the address cannot be had.
  static absl::StatusOr<std::unique_ptr<Relay>> Start(RelayOptions options);
  ~Relay();
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  int port() const;

  void ProgramGone(absl::string_view token, uint64_t group);

  RouterStats GetStats() const;

 private:
  class Loop;
  explicit Relay(std::unique_ptr<Loop> loop);
  std::unique_ptr<Loop> loop_;
};

}  // namespace causeway::callbacks
