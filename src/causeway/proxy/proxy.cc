// Wires the service, its shared context and its settings together.
#include "causeway/proxy/proxy.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "causeway/base/check.h"
#include "causeway/proxy/context.h"
#include "causeway/proxy/grpc_service.h"
#include "causeway/proxy/reply_queue.h"
#include "causeway/proxy/session.h"
#include "grpcpp/server_builder.h"

namespace causeway::proxy {

struct Proxy::Impl {
  std::shared_ptr<Context> context;
  GrpcService service;
};

Proxy::Proxy(core::Runtime& runtime, Options options) {
  auto context = std::make_shared<Context>(runtime, std::move(options));
  impl_.reset(new Impl{context, GrpcService(context)});
}

Proxy::~Proxy() {
  CHECK_EQ(impl_->context->num_streams(), 0u) << "shut the gRPC server down before the proxy";
}

void Proxy::Register(grpc::ServerBuilder& builder) {
  const Options& options = impl_->context->options;
  builder.RegisterService(&impl_->service);
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  builder.SetMaxSendMessageSize(-1);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams);
  // Two servers that share a port by accident would each get half of a client's calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

Stats Proxy::GetStats() const {
  const Counters& counters = impl_->context->counters;
  Stats out;
  const auto* descriptor = ifrt::IfrtRequest::descriptor();
  for (int kind = 0; kind < Counters::kKinds; ++kind) {
    const uint64_t n = counters.requests[kind].load(std::memory_order_relaxed);
    if (n == 0) continue;
    const auto* field = descriptor->FindFieldByNumber(kind);
    out.requests[field == nullptr
                     ? std::string("unknown")
                     : std::string(absl::StripSuffix(field->name(), "_request"))] += n;
  }
  out.failed_requests = counters.failed_requests.load(std::memory_order_relaxed);
  out.sessions_opened = counters.sessions_opened.load(std::memory_order_relaxed);
  out.sessions_open = impl_->context->num_streams();
  out.stores = counters.stores.load(std::memory_order_relaxed);
  out.store_bytes = counters.store_bytes.load(std::memory_order_relaxed);
  out.lookups = counters.lookups.load(std::memory_order_relaxed);
  out.lookup_bytes = counters.lookup_bytes.load(std::memory_order_relaxed);
  out.disk_read_bytes = counters.disk_read_bytes.load(std::memory_order_relaxed);
  out.disk_reads = counters.disk_reads.load(std::memory_order_relaxed);
  return out;
}

absl::Status Proxy::Shutdown(absl::Time deadline) {
  for (const std::shared_ptr<Session>& session : impl_->context->Drain()) {
    session->Close("the server is shutting down");
    session->replies->Finish(
        grpc::Status(grpc::StatusCode::UNAVAILABLE,
                     "the server is shutting down; connect again when it is back"));
  }
  if (impl_->context->AwaitNoStreams(deadline)) return absl::OkStatus();
  return absl::DeadlineExceededError(
      absl::StrCat(impl_->context->num_streams(),
                   " client streams did not end in time; shut the gRPC server down to cut them"));
}

}  // namespace causeway::proxy
