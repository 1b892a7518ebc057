// A client and a fixture that drive the front end over real gRPC, on top of a fake runtime.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "causeway/proxy/fake_runtime.h"
#include "causeway/proxy/proxy.h"
#include "causeway/wire/ifrt_sharding.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "ifrt_service.grpc.pb.h"

namespace causeway::proxy {

using ifrt::IfrtRequest;
using ifrt::IfrtResponse;
using xla::ifrt::proxy::GrpcIfrtService;
namespace svc = ::xla::ifrt::proxy;

inline constexpr uint64_t kServer = uint64_t{1} << 48;

inline std::string SingleSharding(int device) {
  return wire::SerializeSharding(*model::Sharding::SingleDevice(DeviceId(device), ""), "device");
}

inline void LimitTime(grpc::ClientContext* context) {
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
}

// One client: a session stream and the calls beside it.
class Client {
 public:
  Client(std::string target, int protocol = 25)
      : stub_(GrpcIfrtService::NewStub(
            grpc::CreateChannel(target, grpc::InsecureChannelCredentials()))) {
    svc::GrpcIfrtSessionMetadata metadata;
    metadata.mutable_version()->set_protocol_version(protocol);
    metadata.mutable_version()->set_ifrt_serdes_version_number(3);
    (*metadata.mutable_initialization_data()->mutable_attributes())["token"].set_string_value("t");
    context_.AddMetadata("ifrt-proxy-grpc-ifrt-session-metadata-bin",
                         metadata.SerializeAsString());
    LimitTime(&context_);
    stream_ = stub_->IfrtSession(&context_);
  }
  ~Client() {
    if (stream_ == nullptr) return;
    context_.TryCancel();
    IfrtResponse drain;
    while (stream_->Read(&drain)) {
    }
    (void)stream_->Finish();
  }

  uint64_t Send(IfrtRequest request, uint64_t user_context = 0) {
    request.mutable_request_metadata()->set_op_id(++op_id_);
    request.mutable_request_metadata()->set_user_context_id(user_context);
    stream_->Write(request);
    return op_id_;
  }
  IfrtResponse Receive() {
    IfrtResponse response;
    EXPECT_TRUE(stream_->Read(&response)) << "the stream ended";
    return response;
  }
  IfrtResponse Ask(const IfrtRequest& request, uint64_t user_context = 0) {
    const uint64_t op = Send(request, user_context);
    IfrtResponse response = Receive();
    EXPECT_EQ(response.response_metadata().op_id(), op);
    return response;
  }
  ifrt::InitResponse Init() {
    IfrtRequest request;
    request.mutable_init_request();
    IfrtResponse response = Ask(request);
    EXPECT_TRUE(response.has_init_response()) << response.DebugString();
    session_ = response.init_response().session_id();
    return response.init_response();
  }
  grpc::Status Finish() {
    stream_->WritesDone();
    IfrtResponse drain;
    while (stream_->Read(&drain)) {
    }
    grpc::Status status = stream_->Finish();
    stream_ = nullptr;
    return status;
  }

  grpc::Status Store(uint64_t handle, int64_t size, const std::vector<std::string>& chunks) {
    grpc::ClientContext context;
    LimitTime(&context);
    svc::GrpcHostBufferStoreMetadata metadata;
    metadata.set_session_id(session_);
    metadata.set_handle(handle);
    metadata.set_buffer_size(size);
    context.AddMetadata("ifrt-proxy-grpc-host-buffer-store-metadata-bin",
                        metadata.SerializeAsString());
    svc::GrpcEmpty response;
    auto writer = stub_->HostBufferStore(&context, &response);
    for (const std::string& data : chunks) {
      svc::GrpcHostBufferChunk chunk;
      chunk.set_data(data);
      writer->Write(chunk);
    }
    writer->WritesDone();
    return writer->Finish();
  }
  grpc::Status Lookup(uint64_t handle, std::string* out, int* chunks) {
    grpc::ClientContext context;
    LimitTime(&context);
    svc::GrpcHostBufferKey key;
    key.set_session_id(session_);
    key.set_handle(handle);
    auto reader = stub_->HostBufferLookup(&context, key);
    svc::GrpcHostBufferChunk chunk;
    out->clear();
    *chunks = 0;
    while (reader->Read(&chunk)) {
      out->append(chunk.data());
      ++*chunks;
    }
    return reader->Finish();
  }
  grpc::Status DeleteBuffer(uint64_t handle) {
    grpc::ClientContext context;
    LimitTime(&context);
    svc::GrpcHostBufferKey key;
    key.set_session_id(session_);
    key.set_handle(handle);
    svc::GrpcEmpty response;
    return stub_->HostBufferDelete(&context, key, &response);
  }
  grpc::Status ReadFromDisk(uint64_t handle, int64_t size) {
    grpc::ClientContext context;
    LimitTime(&context);
    svc::GrpcHostBufferReadFromDiskRequest request;
    request.mutable_metadata()->set_session_id(session_);
    request.mutable_metadata()->set_handle(handle);
    request.mutable_metadata()->set_buffer_size(size);
    svc::GrpcEmpty response;
    return stub_->HostBufferReadFromDisk(&context, request, &response);
  }
  grpc::Status GetVersion(int min, int max, int serdes_max, svc::IfrtProxyVersion* out) {
    grpc::ClientContext context;
    LimitTime(&context);
    svc::GrpcGetVersionRequest request;
    request.mutable_min_version()->set_protocol_version(min);
    request.mutable_max_version()->set_protocol_version(max);
    request.mutable_max_version()->set_ifrt_serdes_version_number(serdes_max);
    svc::GrpcGetVersionResponse response;
    grpc::Status status = stub_->GetVersion(&context, request, &response);
    *out = response.version();
    return status;
  }
  // Drops the connection without a word.
  void Vanish() { context_.TryCancel(); }

 private:
  std::unique_ptr<GrpcIfrtService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<IfrtRequest, IfrtResponse>> stream_;
  uint64_t op_id_ = 0;
  uint64_t session_ = 0;
};

class ProxyTest : public ::testing::Test {
 protected:
  void Start(Options options = {}) {
    proxy_ = std::make_unique<Proxy>(runtime_, std::move(options));
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    proxy_->Register(builder);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    target_ = absl::StrCat("127.0.0.1:", port);
  }
  void TearDown() override {
    if (server_ == nullptr) return;
    EXPECT_TRUE(proxy_->Shutdown(absl::Now() + absl::Seconds(20)).ok());
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5));
    server_->Wait();
  }

  // Requests of common kinds.
  static IfrtRequest MakeArray(uint64_t handle, int64_t elements) {
    IfrtRequest request;
    auto* make = request.mutable_make_array_from_host_buffer_request();
    make->mutable_dtype()->set_kind(11);
    make->mutable_shape()->add_dims(elements);
    make->set_sharding(SingleSharding(0));
    make->set_host_buffer_handle(handle);
    make->set_array_handle(handle);
    return request;
  }
  static IfrtRequest Destruct(uint64_t handle) {
    IfrtRequest request;
    request.mutable_destruct_array_request()->add_array_handle(handle);
    return request;
  }
  static IfrtRequest Ready(uint64_t handle) {
    IfrtRequest request;
    request.mutable_check_value_ready_request()->add_value_handles(handle);
    return request;
  }
  static IfrtRequest CompileFor(const std::vector<int>& devices, std::string program = "good") {
    ifrt::XlaCompileOptionsProto options;
    auto* assignment = options.mutable_compile_options()
                           ->mutable_executable_build_options()
                           ->mutable_device_assignment();
    assignment->set_replica_count(1);
    assignment->set_computation_count(static_cast<int>(devices.size()));
    for (int id : devices) assignment->add_computation_devices()->add_replica_device_ids(id);
    IfrtRequest request;
    auto* compile = request.mutable_compile_request();
    compile->mutable_program()->set_type_name("xla::ifrt::XlaProgram");
    compile->mutable_program()->set_data(std::move(program));
    compile->mutable_compile_options()->set_type_name("xla::ifrt::XlaCompileOptions");
    compile->mutable_compile_options()->set_data(options.SerializeAsString());
    return request;
  }
  static IfrtRequest Execute(uint64_t executable, std::vector<uint64_t> results = {}) {
    IfrtRequest request;
    auto* execute = request.mutable_loaded_executable_execute_request();
    execute->set_loaded_executable_handle(executable);
    for (uint64_t handle : results) execute->add_result_array_handle(handle);
    return request;
  }
  static absl::StatusCode Code(const IfrtResponse& response) {
    return static_cast<absl::StatusCode>(response.response_metadata().status().code());
  }

  FakeRuntime runtime_{model::ClusterShape{.slices = 2, .hosts_per_slice = 2,
                                           .devices_per_host = 2}};
  std::unique_ptr<Proxy> proxy_;
  std::unique_ptr<grpc::Server> server_;
  std::string target_;
};

}  // namespace causeway::proxy
