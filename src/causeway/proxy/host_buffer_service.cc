// The host buffer calls: bytes in, bytes out, delete, and the shared-directory short cut.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "causeway/proxy/chunk_codec.h"
#include "causeway/proxy/grpc_service.h"
#include "causeway/proxy/host_buffer_store.h"
#include "causeway/proxy/large_transfer.h"

namespace causeway::proxy {
namespace {

constexpr char kStoreMetadataKey[] = "ifrt-proxy-grpc-host-buffer-store-metadata-bin";
// Down to clients. Smaller than the upward chunks: the client starts to copy sooner.
constexpr size_t kLookupChunkBytes = 256 << 10;

// Receives one buffer. Lives until OnDone.
class StoreCall final : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  StoreCall(Context& context, grpc::CallbackServerContext* call, grpc::ByteBuffer* response)
      : context_(context) {
    *response = EmptyMessage();
    if (absl::Status s = Open(call); !s.ok()) {
      Finish(ToGrpc(s));
    } else {
      StartRead(&chunk_);
    }
  }

  void OnReadDone(bool ok) override {
    if (!ok) return Finish(ToGrpc(upload_->Commit()));
    absl::Status status = DecodeChunk(chunk_, [this](absl::string_view bytes) {
      context_.counters.store_bytes.fetch_add(bytes.size(), std::memory_order_relaxed);
      return upload_->Append(bytes);
    });
    chunk_.Clear();
    if (!status.ok()) {
      upload_.reset();  // before the client hears of it, so that it may use the handle again
      return Finish(ToGrpc(status));
    }
    StartRead(&chunk_);
  }

  void OnDone() override { delete this; }

 private:
  absl::Status Open(grpc::CallbackServerContext* call) {
    wire_service::GrpcHostBufferStoreMetadata metadata;
    const std::string bytes = BinaryMetadata(*call, kStoreMetadataKey);
    if (bytes.empty() || !metadata.ParseFromString(bytes)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the call has no readable ", kStoreMetadataKey, "; connect with a JAX client"));
    }
    context_.counters.stores.fetch_add(1, std::memory_order_relaxed);
    auto store = context_.FindStore(metadata.session_id());
    if (!store.ok()) return store.status();
    auto upload = (*store)->BeginUpload(metadata.handle(), metadata.buffer_size());
    if (!upload.ok()) return upload.status();
    upload_ = *std::move(upload);
    return absl::OkStatus();
  }

  Context& context_;
  std::unique_ptr<HostBufferStore::Upload> upload_;
  grpc::ByteBuffer chunk_;
};

// Sends one buffer. Lives until OnDone.
class LookupCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  LookupCall(Context& context, const grpc::ByteBuffer* request) {
    absl::StatusOr<HostBufferStore::Found> found = Find(context, request);
    if (!found.ok()) {
      Finish(ToGrpc(found.status()));
      return;
    }
    context.counters.lookups.fetch_add(1, std::memory_order_relaxed);
    context.counters.lookup_bytes.fetch_add(found->bytes.size(), std::memory_order_relaxed);
    rest_ = std::move(found->bytes);
    lease_ = std::move(found->lease);
    WriteNext();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the client went away"));
    WriteNext();
  }

  void OnDone() override { delete this; }

 private:
  static absl::StatusOr<HostBufferStore::Found> Find(Context& context, const grpc::ByteBuffer* request) {
    std::string text;
    std::vector<grpc::Slice> slices;
    if (!request->Dump(&slices).ok()) {
      return absl::InvalidArgumentError("the look-up request is malformed");
    }
    for (const grpc::Slice& slice : slices) {
      text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
    wire_service::GrpcHostBufferKey key;
    if (!key.ParseFromString(text)) {
      return absl::InvalidArgumentError("the look-up request is malformed");
    }
    auto store = context.FindStore(key.session_id());
    if (!store.ok()) return store.status();
    return (*store)->Lookup(key.handle());
  }

  // An empty buffer is one empty chunk.
  void WriteNext() {
    const size_t n = std::min(rest_.size(), kLookupChunkBytes);
    chunk_ = EncodeChunk(rest_.Subcord(0, n));
    rest_.RemovePrefix(n);
    if (rest_.empty()) {
      StartWriteAndFinish(&chunk_, grpc::WriteOptions(), grpc::Status::OK);
    } else {
      StartWrite(&chunk_);
    }
  }

  absl::Cord rest_;
  std::shared_ptr<void> lease_;
  grpc::ByteBuffer chunk_;
};

}  // namespace

grpc::ServerReadReactor<grpc::ByteBuffer>* GrpcService::HostBufferStore(
    grpc::CallbackServerContext* call, grpc::ByteBuffer* response) {
  return new StoreCall(*context_, call, response);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GrpcService::HostBufferLookup(
    grpc::CallbackServerContext*, const grpc::ByteBuffer* request) {
  return new LookupCall(*context_, request);
}

grpc::ServerUnaryReactor* GrpcService::HostBufferDelete(
    grpc::CallbackServerContext* call, const wire_service::GrpcHostBufferKey* request,
    wire_service::GrpcEmpty*) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  auto store = context_->FindStore(request->session_id());
  reactor->Finish(ToGrpc(store.ok() ? (*store)->Delete(request->handle()) : store.status()));
  return reactor;
}

grpc::ServerUnaryReactor* GrpcService::HostBufferReadFromDisk(
    grpc::CallbackServerContext* call,
    const wire_service::GrpcHostBufferReadFromDiskRequest* request, wire_service::GrpcEmpty*) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  const auto& metadata = request->metadata();
  absl::Status status;
  if (auto store = context_->FindStore(metadata.session_id()); !store.ok()) {
    status = store.status();
  } else if (auto file = TakeLargeTransfer((*store)->folder, metadata.handle(),
                                           metadata.buffer_size());
             !file.ok()) {
    status = file.status();
  } else {
    context_->counters.disk_reads.fetch_add(1, std::memory_order_relaxed);
    context_->counters.disk_read_bytes.fetch_add(metadata.buffer_size(),
                                                 std::memory_order_relaxed);
    const absl::string_view view((*file)->data(), static_cast<size_t>((*file)->size()));
    absl::Cord bytes;
    if (!view.empty()) bytes = absl::MakeCordFromExternal(view, [kept = *file] {});
    status = (*store)->Put(metadata.handle(), std::move(bytes), *std::move(file));
  }
  reactor->Finish(ToGrpc(status));
  return reactor;
}

}  // namespace causeway::proxy
