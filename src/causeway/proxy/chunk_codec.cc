// Hand-written coding of one-field messages over gRPC slices.
#include "causeway/proxy/chunk_codec.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "causeway/base/status_macros.h"

namespace causeway::proxy {
namespace {

constexpr uint64_t kDataTag = (1 << 3) | 2;

absl::Status Malformed() {
  return absl::InvalidArgumentError(
      "a host buffer chunk is malformed; client and server must agree on the protocol");
}

// Walks over the bytes of several slices as if they were one.
class Cursor {
 public:
  explicit Cursor(const std::vector<grpc::Slice>& slices) : slices_(slices) { Settle(); }
  bool done() const { return index_ == slices_.size(); }

  // The next bytes that lie together, at most `max`.
  absl::string_view Take(uint64_t max) {
    const grpc::Slice& slice = slices_[index_];
    const size_t n = static_cast<size_t>(std::min<uint64_t>(max, slice.size() - offset_));
    const absl::string_view out(reinterpret_cast<const char*>(slice.begin()) + offset_, n);
    offset_ += n;
    Settle();
    return out;
  }

  bool Varint(uint64_t* out) {
    *out = 0;
    for (int shift = 0; shift < 64 && !done(); shift += 7) {
      const uint8_t byte = static_cast<uint8_t>(Take(1)[0]);
      *out |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

 private:
  void Settle() {
    while (index_ < slices_.size() && offset_ == slices_[index_].size()) {
      ++index_;
      offset_ = 0;
    }
  }

  const std::vector<grpc::Slice>& slices_;
  size_t index_ = 0;
  size_t offset_ = 0;
};

}  // namespace

absl::Status DecodeChunk(const grpc::ByteBuffer& message,
                         absl::FunctionRef<absl::Status(absl::string_view)> take) {
  std::vector<grpc::Slice> slices;
  if (!message.Dump(&slices).ok()) return Malformed();
  Cursor cursor(slices);
  while (!cursor.done()) {
    uint64_t tag, size;
    if (!cursor.Varint(&tag)) return Malformed();
    if ((tag & 7) == 0) {  // a number that is not ours
      if (!cursor.Varint(&size)) return Malformed();
      continue;
    }
    if ((tag & 7) != 2 || !cursor.Varint(&size)) return Malformed();
    while (size > 0) {
      if (cursor.done()) return Malformed();
      const absl::string_view piece = cursor.Take(size);
      size -= piece.size();
      if (tag != kDataTag) continue;
      RETURN_IF_ERROR(take(piece));
    }
  }
  return absl::OkStatus();
}

grpc::ByteBuffer EncodeChunk(const absl::Cord& data) {
  std::vector<grpc::Slice> slices;
  char header[11];
  size_t n = 0;
  header[n++] = static_cast<char>(kDataTag);
  uint64_t size = data.size();
  for (; size >= 0x80; size >>= 7) header[n++] = static_cast<char>(size | 0x80);
  header[n++] = static_cast<char>(size);
  slices.emplace_back(static_cast<const void*>(header), n);
  // Each slice keeps the cord alive; short cords live inside the object, hence on the heap here.
  const auto owner = std::make_shared<const absl::Cord>(data);
  for (absl::string_view piece : owner->Chunks()) {
    slices.emplace_back(
        const_cast<char*>(piece.data()), piece.size(),
        [](void* user) { delete static_cast<std::shared_ptr<const absl::Cord>*>(user); },
        new std::shared_ptr<const absl::Cord>(owner));
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

grpc::ByteBuffer EmptyMessage() {
  const grpc::Slice empty;
  return grpc::ByteBuffer(&empty, 1);
}

}  // namespace causeway::proxy
