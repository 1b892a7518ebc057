// A host without devices: speaks the control stream to a real head and computes nothing.
//
// Every launch is confirmed as soon as it is read, every value is a zero of four bytes. A program
// has as many outputs as its name says ("..._outputs_3"), all of them replicated float32 scalars.
//
// Thread safety: thread-safe; gRPC calls it from its own threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include <grpcpp/grpcpp.h>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "control.grpc.pb.h"

namespace causeway::bench {

class EmulatedHost : private grpc::ClientBidiReactor<control::FromWorker, control::ToWorker> {
 public:
  // Connects with a connection of its own, as a real host does.
  EmulatedHost(const std::string& head, int worker);

  // Asks for the end; Wait returns soon after.
  void Stop();
  // Blocks until the stream is over. OK unless the head refused this host or went away.
  grpc::Status Wait();
  int64_t launches() const { return launches_; }

 private:
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

  void Handle(const control::Command& command, control::FromWorker* answers);
  void Send(const control::FromWorker& answers);
  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<control::WorkerControl::Stub> stub_;
  grpc::ClientContext context_;
  control::ToWorker incoming_;
  std::atomic<int64_t> launches_{0};

  absl::Mutex mu_;
  control::FromWorker writing_ ABSL_GUARDED_BY(mu_);
  control::FromWorker waiting_ ABSL_GUARDED_BY(mu_);
  bool in_write_ ABSL_GUARDED_BY(mu_) = false;
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  grpc::Status status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::bench
