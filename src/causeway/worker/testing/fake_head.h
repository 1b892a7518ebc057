// A head for tests: one listener that sends commands by hand and records what comes back.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "control.pb.h"

namespace grpc {
class Service;
}

namespace causeway::worker::testing {

// Thread safety: thread-safe. Workers attach by their number; waits are bounded by 60 s and end in
// DEADLINE_EXCEEDED.
class FakeHead {
 public:
  FakeHead();
  // With a gRPC service (the coordination service) on a server of its own, or null.
  explicit FakeHead(grpc::Service* beside);
  ~FakeHead();

  std::string address() const;
  // Of the server of the other service.
  std::string beside_address() const;
  // Ends all connections; workers may attach again.
  void DropStreams();

  // Blocks until the worker has attached; OK carries its Hello.
  absl::StatusOr<control::Hello> WaitAttached(int worker);
  void Send(int worker, const control::Command& command);
  // The first recorded event of the worker that matches, removed from the record.
  absl::StatusOr<control::Event> WaitEvent(
      int worker, const std::function<bool(const control::Event&)>& match,
      absl::Duration timeout = absl::Seconds(60));
  // The reply to a request, with FetchData of it collected by device.
  struct Answer {
    control::Reply reply;
    std::map<int, std::string> data;
  };
  absl::StatusOr<Answer> WaitReply(int worker, uint64_t request);
  // Whether the worker's bulk connection is there, with the right token.
  bool WaitBulk(int worker);
  void SendBulk(int worker, const control::Command& command);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace causeway::worker::testing
