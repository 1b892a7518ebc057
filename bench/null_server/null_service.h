// The null server's gRPC service: the same callback API and write discipline as a real front end.
//
// Thread safety: thread-safe; gRPC calls it from its own threads.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "bench/null_server/null_session.h"
#include "ifrt_service.grpc.pb.h"

namespace causeway::bench {

class NullService : public xla::ifrt::proxy::GrpcIfrtService::CallbackService {
 public:
  explicit NullService(int num_devices) : num_devices_(num_devices) {}

  grpc::ServerUnaryReactor* GetVersion(grpc::CallbackServerContext* context,
                                       const xla::ifrt::proxy::GrpcGetVersionRequest* request,
                                       xla::ifrt::proxy::GrpcGetVersionResponse* response) override;
  grpc::ServerBidiReactor<ifrt::IfrtRequest, ifrt::IfrtResponse>* IfrtSession(
      grpc::CallbackServerContext* context) override;
  grpc::ServerReadReactor<xla::ifrt::proxy::GrpcHostBufferChunk>* HostBufferStore(
      grpc::CallbackServerContext* context, xla::ifrt::proxy::GrpcEmpty* response) override;
  grpc::ServerWriteReactor<xla::ifrt::proxy::GrpcHostBufferChunk>* HostBufferLookup(
      grpc::CallbackServerContext* context,
      const xla::ifrt::proxy::GrpcHostBufferKey* request) override;
  grpc::ServerUnaryReactor* HostBufferDelete(grpc::CallbackServerContext* context,
                                             const xla::ifrt::proxy::GrpcHostBufferKey* request,
                                             xla::ifrt::proxy::GrpcEmpty* response) override;

  // nullptr when there is no such session.
  std::shared_ptr<NullSession> FindOrNull(uint64_t session);
  void Forget(uint64_t session);
  std::shared_ptr<NullSession> Open(NullSession::SendReply send);

 private:
  const int num_devices_;
  absl::Mutex mu_;
  uint64_t next_session_ ABSL_GUARDED_BY(mu_) = 1;
  absl::flat_hash_map<uint64_t, std::shared_ptr<NullSession>> sessions_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::bench
