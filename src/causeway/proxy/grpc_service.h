// The gRPC service of the IFRT proxy protocol, method by method, in callback style.
//
// session_service.cc has the version call and the session stream, host_buffer_service.cc the host
// buffer calls. Those that carry bytes are raw: payloads are copied once, or not at all.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "causeway/proxy/context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "ifrt_service.grpc.pb.h"

namespace causeway::proxy {

namespace wire_service = ::xla::ifrt::proxy;

using ServiceBase = wire_service::GrpcIfrtService::WithCallbackMethod_GetVersion<
    wire_service::GrpcIfrtService::WithCallbackMethod_IfrtSession<
        wire_service::GrpcIfrtService::WithRawCallbackMethod_HostBufferStore<
            wire_service::GrpcIfrtService::WithRawCallbackMethod_HostBufferLookup<
                wire_service::GrpcIfrtService::WithCallbackMethod_HostBufferDelete<
                    wire_service::GrpcIfrtService::WithCallbackMethod_HostBufferReadFromDisk<
                        wire_service::GrpcIfrtService::Service>>>>>>;

class GrpcService final : public ServiceBase {
 public:
  explicit GrpcService(std::shared_ptr<Context> context) : context_(std::move(context)) {}

  grpc::ServerUnaryReactor* GetVersion(
      grpc::CallbackServerContext* call, const wire_service::GrpcGetVersionRequest* request,
      wire_service::GrpcGetVersionResponse* response) override;
  grpc::ServerBidiReactor<ifrt::IfrtRequest, ifrt::IfrtResponse>* IfrtSession(
      grpc::CallbackServerContext* call) override;
  grpc::ServerReadReactor<grpc::ByteBuffer>* HostBufferStore(grpc::CallbackServerContext* call,
                                                             grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* HostBufferLookup(
      grpc::CallbackServerContext* call, const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* HostBufferDelete(grpc::CallbackServerContext* call,
                                             const wire_service::GrpcHostBufferKey* request,
                                             wire_service::GrpcEmpty* response) override;
  grpc::ServerUnaryReactor* HostBufferReadFromDisk(
      grpc::CallbackServerContext* call,
      const wire_service::GrpcHostBufferReadFromDiskRequest* request,
      wire_service::GrpcEmpty* response) override;

 private:
  const std::shared_ptr<Context> context_;
};

grpc::Status ToGrpc(const absl::Status& status);
// The value of a binary metadata key; empty when the call has none.
std::string BinaryMetadata(const grpc::CallbackServerContext& call, const char* key);

}  // namespace causeway::proxy
