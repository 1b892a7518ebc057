// Table of host buffers with claims that may precede the bytes.
#include "causeway/proxy/host_buffer_store.h"

#include <cstring>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "causeway/base/check.h"
#include "causeway/base/status_macros.h"

namespace causeway::proxy {
namespace {

// Smaller buffers travel inside commands, whose number is bounded elsewhere.
constexpr int64_t kCountedBytesMin = 4 << 10;

}  // namespace

// Bytes that may still be under way. Several takers may ask; each is called once.
class HostBufferStore::PendingBytes final : public core::HostBytes {
 public:
  using Taker = absl::AnyInvocable<void(absl::StatusOr<absl::Cord>) &&>;

  void OnReady(Taker done) override {
    {
      absl::MutexLock lock(&mu_);
      if (!result_.has_value()) {
        takers_.push_back(std::move(done));
        return;
      }
    }
    // Set once and never changed again, so it may be read without the lock.
    std::move(done)(*result_);
  }

  std::shared_ptr<const SharedFile> file() override {
    absl::MutexLock lock(&mu_);
    return file_;
  }

  void Resolve(absl::StatusOr<absl::Cord> result,
               std::shared_ptr<const SharedFile> file = nullptr) {
    std::vector<Taker> takers;
    {
      absl::MutexLock lock(&mu_);
      if (result_.has_value()) return;
      result_ = std::move(result);
      file_ = std::move(file);
      takers.swap(takers_);
    }
    for (Taker& taker : takers) std::move(taker)(*result_);
  }

 private:
  absl::Mutex mu_;
  std::optional<absl::StatusOr<absl::Cord>> result_;
  std::shared_ptr<const SharedFile> file_ ABSL_GUARDED_BY(mu_);
  std::vector<Taker> takers_ ABSL_GUARDED_BY(mu_);
};

HostBufferStore::Upload::Upload(std::shared_ptr<HostBufferStore> store, uint64_t handle,
                                int64_t size)
    : store_(std::move(store)),
      handle_(handle),
      size_(size),
      data_(new (std::nothrow) char[size]) {}

HostBufferStore::Upload::~Upload() {
  if (!over_) store_->Finish(handle_, SizeError(received_));
}

absl::Status HostBufferStore::Upload::SizeError(int64_t got) const {
  return absl::DataLossError(absl::StrCat("host buffer ", handle_, " was announced with ", size_,
                                          " bytes, but ", got,
                                          " arrived; send the array again in a new session"));
}

absl::Status HostBufferStore::Upload::Append(absl::string_view bytes) {
  if (static_cast<int64_t>(bytes.size()) > size_ - received_) {
    return SizeError(received_ + static_cast<int64_t>(bytes.size()));
  }
  std::memcpy(data_.get() + received_, bytes.data(), bytes.size());
  received_ += static_cast<int64_t>(bytes.size());
  return absl::OkStatus();
}

absl::Status HostBufferStore::Upload::Commit() {
  CHECK(!over_) << "an upload ends once";
  over_ = true;
  if (received_ != size_) {
    store_->Finish(handle_, SizeError(received_));
    return SizeError(received_);
  }
  absl::Cord bytes;
  if (size_ > 0) {
    char* data = data_.release();
    bytes = absl::MakeCordFromExternal(absl::string_view(data, size_), [data] { delete[] data; });
  }
  store_->Finish(handle_, std::move(bytes));
  return absl::OkStatus();
}

absl::Status HostBufferStore::Reserve(uint64_t handle, int64_t size) {
  RETURN_IF_ERROR(shutdown_);
  if (size < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "host buffer ", handle, " was announced with ", size, " bytes; sizes start at 0"));
  }
  auto it = entries_.find(handle);
  if (it != entries_.end() && (it->second.uploading || it->second.ready)) {
    return absl::AlreadyExistsError(absl::StrCat(
        "host buffer ", handle, " exists in this session; store each handle once"));
  }
  if (size > limits_.max_bytes - bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "host buffer ", handle, " of ", size, " bytes does not fit: this session holds ", bytes_,
        " of max_bytes_per_session = ", limits_.max_bytes,
        " bytes; wait for transfers to finish, send smaller arrays, or raise the limit"));
  }
  if (it == entries_.end() && static_cast<int64_t>(entries_.size()) >= limits_.max_buffers) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "host buffer ", handle, " does not fit: this session holds max_buffers_per_session = ",
        limits_.max_buffers, " buffers; wait for transfers to finish, or raise the limit"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<HostBufferStore::Upload>> HostBufferStore::BeginUpload(
    uint64_t handle, int64_t size) {
  {
    absl::MutexLock lock(&mu_);
    RETURN_IF_ERROR(Reserve(handle, size));
    Entry& entry = entries_[handle];
    entry.uploading = true;
    entry.size = size;
    bytes_ += size;
  }
  std::unique_ptr<Upload> upload(new Upload(shared_from_this(), handle, size));
  if (upload->data_ == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "this machine has no memory for host buffer ", handle, " of ", size,
        " bytes; send smaller arrays or use a machine with more memory"));
  }
  return upload;
}

void HostBufferStore::Finish(uint64_t handle, absl::StatusOr<absl::Cord> bytes,
                             std::shared_ptr<const SharedFile> file) {
  std::shared_ptr<PendingBytes> claimant;
  {
    absl::MutexLock lock(&mu_);
    auto it = entries_.find(handle);
    if (it == entries_.end()) return;  // shut down meanwhile
    Entry& entry = it->second;
    CHECK(entry.uploading) << "handle " << handle;
    if (entry.claimant == nullptr && bytes.ok()) {
      entry.uploading = false;
      entry.ready = true;
      entry.bytes = *std::move(bytes);
      entry.file = std::move(file);
      return;
    }
    bytes_ -= entry.size;
    claimant = std::move(entry.claimant);
    if (claimant != nullptr) --awaited_;
    entries_.erase(it);
  }
  if (claimant == nullptr) return;
  if (bytes.ok()) bytes = Counted(*std::move(bytes));
  claimant->Resolve(std::move(bytes), std::move(file));
}

absl::Cord HostBufferStore::Counted(absl::Cord bytes) const {
  const auto flat = bytes.TryFlat();
  const auto size = static_cast<int64_t>(bytes.size());
  if (!flat.has_value() || size < kCountedBytesMin) return bytes;
  in_flight_->Take(size);
  // The view stays valid: uploads lie in memory of their own, which `bytes` keeps. (A small cord
  // keeps its bytes inside itself, so it has to stay where it is.)
  auto owner = std::make_unique<absl::Cord>(std::move(bytes));
  const absl::string_view view = *owner->TryFlat();
  return absl::MakeCordFromExternal(
      view, [owner = std::move(owner), room = in_flight_, size]() mutable {
        owner = nullptr;
        room->GiveBack(size);
      });
}

absl::Status HostBufferStore::Store(uint64_t handle, absl::Cord bytes,
                                    std::shared_ptr<void> lease,
                                    std::shared_ptr<const SharedFile> file) {
  {
    absl::MutexLock lock(&mu_);
    const int64_t size = static_cast<int64_t>(bytes.size());
    RETURN_IF_ERROR(Reserve(handle, size));
    Entry& entry = entries_[handle];
    entry.uploading = true;
    entry.size = size;
    entry.lease = std::move(lease);
    bytes_ += size;
  }
  Finish(handle, std::move(bytes), std::move(file));
  return absl::OkStatus();
}

absl::Status HostBufferStore::Put(uint64_t handle, absl::Cord bytes,
                                  std::shared_ptr<const SharedFile> file) {
  return Store(handle, std::move(bytes), nullptr, std::move(file));
}

absl::Status HostBufferStore::PutForClient(uint64_t handle, absl::Cord bytes) {
  const auto size = static_cast<int64_t>(bytes.size());
  in_flight_->Take(size);
  std::shared_ptr<void> lease(nullptr,
                              [room = in_flight_, size](void*) { room->GiveBack(size); });
  return Store(handle, std::move(bytes), std::move(lease), nullptr);
}

absl::StatusOr<HostBufferStore::Found> HostBufferStore::Lookup(uint64_t handle) {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(shutdown_);
  auto it = entries_.find(handle);
  if (it == entries_.end() || !it->second.ready) {
    return absl::NotFoundError(absl::StrCat(
        "host buffer ", handle, " is not in this session; copy an array to it first, and look it "
        "up before it is deleted"));
  }
  return Found{it->second.bytes, it->second.lease};
}

absl::Status HostBufferStore::Delete(uint64_t handle) {
  absl::Cord bytes;  // freed after the lock
  std::shared_ptr<void> lease;
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(shutdown_);
  auto it = entries_.find(handle);
  if (it == entries_.end() || !it->second.ready) {
    return absl::NotFoundError(absl::StrCat(
        "host buffer ", handle, " is not in this session; it was deleted or used already"));
  }
  bytes_ -= it->second.size;
  bytes = std::move(it->second.bytes);
  lease = std::move(it->second.lease);
  entries_.erase(it);
  return absl::OkStatus();
}

std::shared_ptr<core::HostBytes> HostBufferStore::Claim(uint64_t handle) {
  auto fresh = std::make_shared<PendingBytes>();
  absl::StatusOr<absl::Cord> now;
  std::shared_ptr<void> lease;  // given back after the lock
  std::shared_ptr<const SharedFile> file;
  {
    absl::MutexLock lock(&mu_);
    auto it = entries_.find(handle);
    if (!shutdown_.ok()) {
      now = shutdown_;
    } else if (it != entries_.end() && it->second.ready) {
      bytes_ -= it->second.size;
      now = std::move(it->second.bytes);
      lease = std::move(it->second.lease);
      file = std::move(it->second.file);
      entries_.erase(it);
    } else if (it != entries_.end()) {
      if (it->second.claimant == nullptr) {
        it->second.claimant = fresh;
        ++awaited_;
      }
      return it->second.claimant;
    } else if (static_cast<int64_t>(entries_.size()) >= limits_.max_buffers) {
      now = absl::ResourceExhaustedError(absl::StrCat(
          "too many arrays of this session wait for their host buffers "
          "(max_buffers_per_session = ", limits_.max_buffers, "); raise the limit"));
    } else {
      entries_[handle].claimant = fresh;
      ++awaited_;
      return fresh;
    }
  }
  if (now.ok()) now = Counted(*std::move(now));
  fresh->Resolve(std::move(now), std::move(file));
  return fresh;
}

void HostBufferStore::Shutdown(absl::string_view reason) {
  absl::flat_hash_map<uint64_t, Entry> entries;
  absl::Status status;
  {
    absl::MutexLock lock(&mu_);
    if (!shutdown_.ok()) return;
    shutdown_ = absl::CancelledError(
        absl::StrCat("the session ended (", reason, "); open a new one and send the array again"));
    status = shutdown_;
    entries.swap(entries_);
    bytes_ = 0;
    awaited_ = 0;
  }
  for (auto& [handle, entry] : entries) {
    if (entry.claimant != nullptr) entry.claimant->Resolve(status);
  }
}

int64_t HostBufferStore::num_buffers() {
  absl::MutexLock lock(&mu_);
  return static_cast<int64_t>(entries_.size());
}

int64_t HostBufferStore::num_bytes() {
  absl::MutexLock lock(&mu_);
  return bytes_;
}

}  // namespace causeway::proxy
