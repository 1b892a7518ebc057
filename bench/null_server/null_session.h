// One session of the null server: answers IFRT requests from a table of shapes, without any values.
//
// Every array is only a type, a shape and a sharding; every program has the outputs that its
// arguments suggest. What is left is what a stock client costs by itself.
//
// Thread safety: all methods are thread-safe. Errors: a request that a benchmark does not need is
// answered with UNIMPLEMENTED and its name.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "ifrt_session.pb.h"

namespace causeway::bench {

class NullSession {
 public:
  // Takes replies in the order in which they are to be sent; called under the session's lock.
  using SendReply = absl::AnyInvocable<void(ifrt::IfrtResponse)>;

  NullSession(uint64_t id, int num_devices, SendReply send);

  uint64_t id() const { return id_; }
  // To be called in stream order. Answers at once, except questions about uploads under way.
  void Handle(const ifrt::IfrtRequest& request);
  // An upload under `handle` is complete; its bytes are not kept.
  void Uploaded(uint64_t handle);
  // The size of what CopyToHostBuffer put under `handle`; NOT_FOUND when there is nothing.
  absl::StatusOr<int64_t> HostBufferSize(uint64_t handle);
  void DeleteHostBuffer(uint64_t handle);
  // No reply is sent after this.
  void Close();

 private:
  struct Spec {
    ifrt::DTypeProto dtype;
    ifrt::ShapeProto shape;
    std::string sharding;  // a serialized ShardingProto, as the client sent it
    uint64_t upload = 0;   // the host buffer it was made of; 0 = none
  };
  using SpecRef = std::shared_ptr<const Spec>;
  struct Executable {
    int num_outputs = -1;  // -1: as many as arguments
    std::vector<SpecRef> outputs;
    bool executed = false;
  };
  struct ReadyQuestion {
    ifrt::IfrtRequest request;
    int uploads_due = 0;
  };

  absl::Status Answer(const ifrt::IfrtRequest& request, ifrt::IfrtResponse* reply)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Init(ifrt::InitResponse* reply) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Compile(const ifrt::CompileRequest& request, ifrt::CompileResponse* reply)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Execute(const ifrt::ExecuteRequest& request, ifrt::ExecuteResponse* reply)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MakeFromShards(const ifrt::MakeArraysFromShardsRequest& request, ifrt::ArrayListReply* reply)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CopyToHost(const ifrt::CopyToHostBufferRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Uploads that a check_value_ready has to wait for.
  int UploadsDue(const ifrt::CheckValueReadyRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<SpecRef> Find(uint64_t array) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t NewHandle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return next_handle_++; }
  void Reply(const ifrt::IfrtRequest& request, ifrt::IfrtResponse reply, absl::Status status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const uint64_t id_;
  const int num_devices_;

  absl::Mutex mu_;
  SendReply send_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t next_handle_ ABSL_GUARDED_BY(mu_) = uint64_t{1} << 48;
  int64_t next_seq_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<uint64_t> released_contexts_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<uint64_t, SpecRef> arrays_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<uint64_t, Executable> executables_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_set<uint64_t> deletions_ ABSL_GUARDED_BY(mu_);
  // Uploads that have ended before, and that are awaited by, the array made of them.
  absl::flat_hash_set<uint64_t> uploaded_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<uint64_t, std::vector<std::shared_ptr<ReadyQuestion>>> awaited_
      ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<uint64_t, int64_t> host_buffers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::bench
