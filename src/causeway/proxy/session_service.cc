// The version call and the session stream.
#include <map>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "causeway/base/log.h"
#include "causeway/proxy/grpc_service.h"
#include "causeway/proxy/reply_queue.h"
#include "causeway/proxy/session.h"
#include "causeway/proxy/version.h"
#include "google/protobuf/arena.h"
#include "grpcpp/alarm.h"

namespace causeway::proxy {
namespace {

constexpr char kSessionMetadataKey[] = "ifrt-proxy-grpc-ifrt-session-metadata-bin";
constexpr size_t kRequestBlockBytes = 16 << 10;
// What a reply that nobody waits for may wait for others.
constexpr int64_t kHeldMs = 20;

Version FromProto(const wire_service::IfrtProxyVersion& proto) {
  return {.protocol = proto.protocol_version(), .serdes = proto.ifrt_serdes_version_number()};
}

Hello MakeHello(const grpc::CallbackServerContext& call,
                const wire_service::GrpcIfrtSessionMetadata& metadata) {
  Hello hello{.peer = call.peer()};
  for (const auto& [name, value] : metadata.initialization_data().attributes()) {
    std::string& text = hello.data[name];
    if (value.has_string_value()) text = value.string_value();
    if (value.has_bool_value()) text = value.bool_value() ? "true" : "false";
    if (value.has_int64_value()) text = absl::StrCat(value.int64_value());
    if (value.has_float_value()) text = absl::StrCat(value.float_value());
  }
  return hello;
}

// One session's stream. Requests are handled where they are read, and the next one is read when
// the handler returns: that keeps them in order without a queue or a thread.
// Lives until OnDone.
class SessionStream final : public grpc::ServerBidiReactor<ifrt::IfrtRequest, ifrt::IfrtResponse>,
                            public ReplyStream {
 public:
  SessionStream(const std::shared_ptr<Context>& context, grpc::CallbackServerContext* call)
      : context_(context),
        block_(new char[kRequestBlockBytes]),
        arena_(block_.get(), kRequestBlockBytes),
        replies_(std::make_shared<ReplyQueue>(this, context->options.max_queued_replies)) {
    if (absl::Status s = Open(call); !s.ok()) {
      LOG(WARNING) << "refused a session of " << call->peer() << ": " << s;
      replies_->Finish(ToGrpc(s));
      return;
    }
    replies_->Read();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return End("the client closed its stream", grpc::Status::OK);
    HandleRead();
  }

  void OnWriteDone(bool ok) override {
    if (replies_->OnWriteDone(ok)) GoOn();
  }

  void OnCancel() override {
    End("the client's connection is gone", grpc::Status(grpc::StatusCode::CANCELLED, "cancelled"));
  }

  void OnDone() override {
    {
      absl::MutexLock lock(&life_->mu);
      life_->stream = nullptr;
    }
    if (session_ != nullptr) {
      session_->Close("its stream is done");
      context_->RemoveStream(session_.get());
    }
    delete this;
  }

 private:
  // What outlives the stream in the hands of those who will wake it.
  struct Life {
    explicit Life(SessionStream* owner) : stream(owner) {}
    absl::Mutex mu;
    SessionStream* stream ABSL_GUARDED_BY(mu);
  };

  void Write(const ifrt::IfrtResponse& message, bool more) override {
    grpc::WriteOptions options;
    // The transport may put both in one packet.
    if (more) options.set_buffer_hint();
    StartWrite(&message, options);
  }
  void Read() override {
    request_ = google::protobuf::Arena::CreateMessage<ifrt::IfrtRequest>(&arena_);
    StartRead(request_);
  }
  void ReleaseSoon() override {
    Wake(life_, gpr_time_from_millis(kHeldMs, GPR_TIMESPAN), &SessionStream::ReleaseHeld);
  }
  void Finish(const grpc::Status& status) override { ServerBidiReactor::Finish(status); }

  void ReleaseHeld() { replies_->ReleaseHeld(); }

  absl::Status Open(grpc::CallbackServerContext* call) {
    wire_service::GrpcIfrtSessionMetadata metadata;
    const std::string bytes = BinaryMetadata(*call, kSessionMetadataKey);
    if (bytes.empty() || !metadata.ParseFromString(bytes)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the call has no readable ", kSessionMetadataKey, "; connect with a JAX client"));
    }
    const Version version = FromProto(metadata.version());
    if (absl::Status s = CheckSupported(version, context_->newest()); !s.ok()) return s;
    const Hello hello = MakeHello(*call, metadata);
    if (context_->options.admit) {
      if (absl::Status s = context_->options.admit(hello); !s.ok()) return s;
    }
    // A client with our package has a folder of its own; others share the one of the options.
    std::string folder = context_->options.large_transfer_directory;
    const auto own = hello.data.find("causeway_shared_folder");
    if (own != hello.data.end() && SharedFolder::IsFolderOfUser(own->second)) folder = own->second;
    auto session =
        std::make_shared<Session>(context_, version, call->peer(), replies_, std::move(folder));
    if (absl::Status s = context_->AddStream(session); !s.ok()) return s;
    session_ = std::move(session);
    return absl::OkStatus();
  }

  // Handles the request that was read, or leaves it to whoever it has to wait for.
  void HandleRead() {
    // Hardly ever is anything awaited: the way to come back is made only then.
    if (session_->buffers->num_awaited() > 0 &&
        !session_->MayHandle(*request_, Later(&SessionStream::HandleRead))) {
      return;
    }
    session_->Handle(*request_);
    request_ = nullptr;
    arena_.Reset();
    GoOn();
  }

  // Reads the next request, or leaves it to whoever makes room for it. One reason at a time holds
  // the reader back, and all are asked again after it, so it is never woken twice.
  void GoOn() {
    if (replies_->MayRead() && session_->MayRead(Later(&SessionStream::GoOn))) replies_->Read();
  }

  // Has `what` called from another thread, if the stream is there then.
  static void Wake(std::shared_ptr<Life> life, gpr_timespec delay, void (SessionStream::*what)()) {
    auto alarm = std::make_shared<grpc::Alarm>();
    alarm->Set(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), delay),
               [life = std::move(life), what, alarm](bool) mutable {
                 alarm = nullptr;  // it holds this function
                 absl::MutexLock lock(&life->mu);
                 if (life->stream != nullptr) (life->stream->*what)();
               });
  }

  // Whoever makes room may hold locks that going on needs, so another thread does that.
  Room::Resume Later(void (SessionStream::*what)()) {
    return [life = life_, what] { Wake(life, gpr_time_0(GPR_TIMESPAN), what); };
  }

  void End(const char* reason, const grpc::Status& status) {
    if (session_ != nullptr) session_->Close(reason);
    replies_->Finish(status);
  }

  const std::shared_ptr<Context> context_;
  const std::shared_ptr<Life> life_ = std::make_shared<Life>(this);
  const std::unique_ptr<char[]> block_;
  google::protobuf::Arena arena_;
  ifrt::IfrtRequest* request_ = nullptr;
  const std::shared_ptr<ReplyQueue> replies_;
  std::shared_ptr<Session> session_;  // null: refused
};

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      std::string(status.message()));
}

std::string BinaryMetadata(const grpc::CallbackServerContext& call, const char* key) {
  const auto& metadata = call.client_metadata();
  auto it = metadata.find(key);
  if (it == metadata.end()) return std::string();
  return std::string(it->second.data(), it->second.size());
}

grpc::ServerUnaryReactor* GrpcService::GetVersion(
    grpc::CallbackServerContext* call, const wire_service::GrpcGetVersionRequest* request,
    wire_service::GrpcGetVersionResponse* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  absl::StatusOr<Version> version =
      Negotiate(FromProto(request->min_version()), FromProto(request->max_version()),
                context_->newest());
  if (version.ok()) {
    response->mutable_version()->set_protocol_version(version->protocol);
    response->mutable_version()->set_ifrt_serdes_version_number(version->serdes);
  } else {
    LOG(WARNING) << call->peer() << ": " << version.status();
  }
  reactor->Finish(ToGrpc(version.status()));
  return reactor;
}

grpc::ServerBidiReactor<ifrt::IfrtRequest, ifrt::IfrtResponse>* GrpcService::IfrtSession(
    grpc::CallbackServerContext* call) {
  return new SessionStream(context_, call);
}

}  // namespace causeway::proxy
