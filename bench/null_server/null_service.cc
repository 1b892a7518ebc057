// gRPC reactors of the null server: requests are answered inside the read callback.
#include "bench/null_server/null_service.h"

#include <algorithm>
#include <deque>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace causeway::bench {
namespace {

namespace proxy = ::xla::ifrt::proxy;

constexpr int kMaxProtocol = 25;
constexpr int kMaxSerdes = 3;
constexpr int64_t kChunkBytes = 256 << 10;
constexpr char kStoreMetadata[] = "ifrt-proxy-grpc-host-buffer-store-metadata-bin";

// The session's stream. Owned by gRPC from creation to OnDone.
class SessionReactor : public grpc::ServerBidiReactor<ifrt::IfrtRequest, ifrt::IfrtResponse> {
 public:
  explicit SessionReactor(NullService* service) : service_(service) {
    session_ = service->Open([this](ifrt::IfrtResponse reply) { Send(std::move(reply)); });
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      session_->Close();
      Finish(grpc::Status::OK);
      return;
    }
    session_->Handle(request_);
    StartRead(&request_);
  }
  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    queue_.pop_front();
    if (ok && !queue_.empty()) Write();
  }
  void OnDone() override {
    session_->Close();
    service_->Forget(session_->id());
    delete this;
  }

 private:
  void Send(ifrt::IfrtResponse reply) {
    absl::MutexLock lock(&mu_);
    queue_.push_back(std::move(reply));
    if (queue_.size() == 1) Write();
  }
  void Write() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    grpc::WriteOptions options;
    if (queue_.size() > 1) options.set_buffer_hint();
    StartWrite(&queue_.front(), options);
  }

  NullService* const service_;
  std::shared_ptr<NullSession> session_;
  ifrt::IfrtRequest request_;
  absl::Mutex mu_;
  std::deque<ifrt::IfrtResponse> queue_ ABSL_GUARDED_BY(mu_);
};

// An upload: counts the bytes and drops them.
class StoreReactor : public grpc::ServerReadReactor<proxy::GrpcHostBufferChunk> {
 public:
  StoreReactor(NullService* service, grpc::CallbackServerContext* context) {
    auto found = context->client_metadata().find(kStoreMetadata);
    if (found == context->client_metadata().end() ||
        !metadata_.ParseFromArray(found->second.data(), static_cast<int>(found->second.size()))) {
      Finish(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "an upload without its metadata"));
      return;
    }
    session_ = service->FindOrNull(metadata_.session_id());
    if (session_ == nullptr) {
      Finish(grpc::Status(grpc::StatusCode::NOT_FOUND, "an upload for no session"));
      return;
    }
    StartRead(&chunk_);
  }

  void OnReadDone(bool ok) override {
    if (ok) {
      received_ += static_cast<int64_t>(chunk_.data().size());
      StartRead(&chunk_);
      return;
    }
    if (received_ != metadata_.buffer_size()) {
      Finish(grpc::Status(
          grpc::StatusCode::DATA_LOSS,
          absl::StrCat("an upload of ", metadata_.buffer_size(), " bytes ended at ", received_)));
      return;
    }
    session_->Uploaded(metadata_.handle());
    Finish(grpc::Status::OK);
  }
  void OnDone() override { delete this; }

 private:
  proxy::GrpcHostBufferStoreMetadata metadata_;
  std::shared_ptr<NullSession> session_;
  proxy::GrpcHostBufferChunk chunk_;
  int64_t received_ = 0;
};

// A read: zeros of the right size, one chunk made once.
class LookupReactor : public grpc::ServerWriteReactor<proxy::GrpcHostBufferChunk> {
 public:
  LookupReactor(NullService* service, const proxy::GrpcHostBufferKey& key) {
    std::shared_ptr<NullSession> session = service->FindOrNull(key.session_id());
    absl::StatusOr<int64_t> size = session == nullptr ? absl::NotFoundError("a read for no session")
                                                      : session->HostBufferSize(key.handle());
    if (!size.ok()) {
      Finish(grpc::Status(grpc::StatusCode::NOT_FOUND, std::string(size.status().message())));
      return;
    }
    left_ = *size;
    chunk_.mutable_data()->resize(std::min(left_, kChunkBytes));
    Next();
  }

  void OnWriteDone(bool ok) override {
    if (!ok || left_ == 0) {
      Finish(grpc::Status::OK);
      return;
    }
    Next();
  }
  void OnDone() override { delete this; }

 private:
  void Next() {
    const int64_t size = std::min(left_, kChunkBytes);
    if (static_cast<int64_t>(chunk_.data().size()) != size) chunk_.mutable_data()->resize(size);
    left_ -= size;
    StartWrite(&chunk_);
  }

  proxy::GrpcHostBufferChunk chunk_;
  int64_t left_ = 0;
};

grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext* context, grpc::Status status) {
  auto* reactor = context->DefaultReactor();
  reactor->Finish(std::move(status));
  return reactor;
}

}  // namespace

grpc::ServerUnaryReactor* NullService::GetVersion(grpc::CallbackServerContext* context,
                                                  const proxy::GrpcGetVersionRequest* request,
                                                  proxy::GrpcGetVersionResponse* response) {
  const auto& wanted = request->max_version();
  auto* version = response->mutable_version();
  version->set_protocol_version(std::min<int>(kMaxProtocol, wanted.protocol_version()));
  version->set_ifrt_serdes_version_number(
      std::min<int>(kMaxSerdes, wanted.ifrt_serdes_version_number()));
  return FinishNow(context, grpc::Status::OK);
}

grpc::ServerBidiReactor<ifrt::IfrtRequest, ifrt::IfrtResponse>* NullService::IfrtSession(
    grpc::CallbackServerContext* context) {
  return new SessionReactor(this);
}

grpc::ServerReadReactor<proxy::GrpcHostBufferChunk>* NullService::HostBufferStore(
    grpc::CallbackServerContext* context, proxy::GrpcEmpty* response) {
  return new StoreReactor(this, context);
}

grpc::ServerWriteReactor<proxy::GrpcHostBufferChunk>* NullService::HostBufferLookup(
    grpc::CallbackServerContext* context, const proxy::GrpcHostBufferKey* request) {
  return new LookupReactor(this, *request);
}

grpc::ServerUnaryReactor* NullService::HostBufferDelete(grpc::CallbackServerContext* context,
                                                        const proxy::GrpcHostBufferKey* request,
                                                        proxy::GrpcEmpty* response) {
  if (auto session = FindOrNull(request->session_id())) {
    session->DeleteHostBuffer(request->handle());
  }
  return FinishNow(context, grpc::Status::OK);
}

std::shared_ptr<NullSession> NullService::FindOrNull(uint64_t session) {
  absl::MutexLock lock(&mu_);
  auto found = sessions_.find(session);
  return found == sessions_.end() ? nullptr : found->second;
}

void NullService::Forget(uint64_t session) {
  absl::MutexLock lock(&mu_);
  sessions_.erase(session);
}

std::shared_ptr<NullSession> NullService::Open(NullSession::SendReply send) {
  absl::MutexLock lock(&mu_);
  const uint64_t id = next_session_++;
  auto session = std::make_shared<NullSession>(id, num_devices_, std::move(send));
  sessions_[id] = session;
  return session;
}

}  // namespace causeway::bench
