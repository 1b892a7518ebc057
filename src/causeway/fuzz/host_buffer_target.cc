// Fuzz target: the host buffer store and the codec of its chunks, against a model of the store.
//
// A frame's kind is the operation; its first byte is the handle (of 8), the rest its bytes.
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "causeway/base/check.h"
#include "causeway/fuzz/target.h"
#include "causeway/proxy/chunk_codec.h"
#include "causeway/proxy/host_buffer_store.h"

namespace causeway::fuzz {
namespace {

constexpr int64_t kBytesMax = 1 << 12;
constexpr int64_t kBuffersMax = 4;

enum Kind : uint8_t { kBegin, kAppend, kCommit, kAbandon, kPut, kLookup, kDelete, kClaim,
                      kShutdown, kKinds };

class Checker {
 public:
  Checker()
      : store_(std::make_shared<proxy::HostBufferStore>(
            proxy::HostBufferStore::Limits{.max_bytes = kBytesMax, .max_buffers = kBuffersMax})) {}

  void Feed(const Frame& frame) {
    if (frame.kind >= kKinds) return;
    const uint64_t handle = frame.bytes.empty() ? 0 : static_cast<uint8_t>(frame.bytes[0]) % 8;
    const std::string bytes = frame.bytes.empty() ? std::string() : frame.bytes.substr(1);
    switch (frame.kind) {
      case kBegin: {
        int64_t size = static_cast<int64_t>(bytes.size());
        if (!bytes.empty() && bytes[0] == '\xff') size = -size;
        if (!bytes.empty() && bytes[0] == '\xfe') size = int64_t{1} << 62;
        auto upload = store_->BeginUpload(handle, size);
        // The handle of an upload that is under way is taken, so this cannot replace one.
        if (upload.ok()) uploads_[handle] = *std::move(upload);
        break;
      }
      case kAppend: {
        auto it = uploads_.find(handle);
        if (it == uploads_.end()) break;
        // As from the network: a message of chunks, cut into slices.
        const grpc::Slice slices[2] = {grpc::Slice(bytes.substr(0, bytes.size() / 2)),
                                       grpc::Slice(bytes.substr(bytes.size() / 2))};
        absl::Status status =
            proxy::DecodeChunk(grpc::ByteBuffer(slices, 2), [&](absl::string_view piece) {
              CHECK(!piece.empty());
              return it->second->Append(piece);
            });
        if (!status.ok()) uploads_.erase(it);
        break;
      }
      case kCommit: {
        auto it = uploads_.find(handle);
        if (it == uploads_.end()) break;
        auto upload = std::move(it->second);
        uploads_.erase(it);
        (void)upload->Commit();
        break;
      }
      case kAbandon:
        uploads_.erase(handle);
        break;
      case kPut: {
        const bool room = store_->num_bytes() + static_cast<int64_t>(bytes.size()) <= kBytesMax;
        const absl::Status status = store_->Put(handle, absl::Cord(bytes));
        CHECK(room || !status.ok());
        break;
      }
      case kLookup: {
        const auto found = store_->Lookup(handle);
        CHECK(!found.ok() || static_cast<int64_t>(found->bytes.size()) <= store_->num_bytes());
        // What goes out comes back in.
        if (!found.ok()) break;
        std::string back;
        CHECK(proxy::DecodeChunk(proxy::EncodeChunk(found->bytes), [&back](absl::string_view piece) {
                back.append(piece.data(), piece.size());
                return absl::OkStatus();
              }).ok());
        CHECK_EQ(back, std::string(found->bytes));
        break;
      }
      case kDelete:
        (void)store_->Delete(handle);
        CHECK(!store_->Lookup(handle).ok());
        break;
      case kClaim: {
        ++claims_;
        store_->Claim(handle)->OnReady([this](absl::StatusOr<absl::Cord>) { ++answered_; });
        break;
      }
      case kShutdown:
        store_->Shutdown("the input says so");
        break;
    }
    CHECK(store_->num_bytes() >= 0 && store_->num_bytes() <= kBytesMax);
    CHECK_LE(store_->num_buffers(), kBuffersMax);
  }

  void End() {
    uploads_.clear();
    store_->Shutdown("the input ends");
    CHECK_EQ(claims_, answered_);
    CHECK_EQ(store_->num_bytes(), 0);
    CHECK_EQ(store_->num_buffers(), 0);
    CHECK_EQ(store_->in_flight().used(), 0);
  }

 private:
  std::shared_ptr<proxy::HostBufferStore> store_;
  std::map<uint64_t, std::unique_ptr<proxy::HostBufferStore::Upload>> uploads_;
  int64_t claims_ = 0;
  int64_t answered_ = 0;
};

class HostBufferTarget : public Target {
 public:
  int num_kinds() const override { return kKinds; }
  const google::protobuf::Message* Prototype(uint8_t) const override { return nullptr; }
  void Run(const std::vector<Frame>& frames) override {
    Checker checker;
    for (const Frame& frame : frames) checker.Feed(frame);
    checker.End();
  }
};

}  // namespace

Target& TheTarget() {
  static HostBufferTarget target;
  return target;
}

}  // namespace causeway::fuzz
