// Chunks into blocks, with their checksums verified.
#include "causeway/worker/transfer_assembler.h"

#include <cstring>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "causeway/base/shared_memory.h"
#include "causeway/base/status_macros.h"

namespace causeway::worker {
namespace {

constexpr size_t kFinishedMax = 1 << 14;

absl::Status Verify(const Chunk& chunk, const char* bytes, size_t size) {
  if (!chunk.checksum.has_value()) return absl::OkStatus();
  if (XXH3_64bits(bytes, size) == *chunk.checksum) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("transfer ", chunk.transfer.value(),
                                          " was damaged on its way at byte ", chunk.offset));
}

}  // namespace

absl::StatusOr<device::HostBytes> TransferAssembler::Map(const Chunk& chunk) {
  device::HostBytes block;
  if (!chunk.segment.empty()) {
    ASSIGN_OR_RETURN(block, segments_.Open(chunk.segment, chunk.total));
  } else {
    ASSIGN_OR_RETURN(std::shared_ptr<SharedFile> file,
                     SharedFile::Open(chunk.file, chunk.file_offset, chunk.total,
                                      SharedFile::Name::kRemoveNow));
    const char* data = file->data();
    block = device::HostBlock::Borrow(data, static_cast<size_t>(chunk.total), std::move(file));
  }
  RETURN_IF_ERROR(Verify(chunk, block->data(), block->size()));
  if (!SharedFolder::IsCrowded()) return block;
  // The array may live for long; what is shared must be left to what is on its way.
  auto own = device::HostBlock::Allocate(block->size());
  if (own == nullptr) return block;
  std::memcpy(own->mutable_data(), block->data(), block->size());
  return device::HostBytes(std::move(own));
}

absl::StatusOr<device::HostBytes> TransferAssembler::Store(Chunk& chunk,
                                                           std::vector<int64_t>* byte_strides) {
  if (!chunk.error.ok()) return chunk.error;
  if (!chunk.segment.empty() || !chunk.file.empty()) {
    *byte_strides = std::move(chunk.byte_strides);
    return Map(chunk);
  }
  RETURN_IF_ERROR(Verify(chunk, chunk.bytes.data(), chunk.bytes.size()));
  const int64_t size = static_cast<int64_t>(chunk.bytes.size());
  if (chunk.total < 0) {
    return absl::InvalidArgumentError(absl::StrCat("transfer ", chunk.transfer.value(), " of ",
                                                   chunk.total, " bytes; sizes start at 0"));
  }
  absl::MutexLock lock(&mu_);
  Partial& partial = partial_[chunk.transfer];
  if (partial.block == nullptr) {
    partial.block = device::HostBlock::Allocate(static_cast<size_t>(chunk.total));
    if (partial.block == nullptr) {
      return absl::ResourceExhaustedError(
          absl::StrCat("no host memory for a transfer of ", chunk.total, " bytes"));
    }
    partial.byte_strides = std::move(chunk.byte_strides);
  }
  if (chunk.offset != partial.filled ||
      size > static_cast<int64_t>(partial.block->size()) - partial.filled) {
    return absl::DataLossError(absl::StrCat("transfer ", chunk.transfer.value(), " has a gap: byte ",
                                            chunk.offset, " came after ", partial.filled));
  }
  std::memcpy(partial.block->mutable_data() + chunk.offset, chunk.bytes.data(),
              chunk.bytes.size());
  partial.filled += size;
  if (partial.filled < static_cast<int64_t>(partial.block->size())) return device::HostBytes();
  *byte_strides = std::move(partial.byte_strides);
  return device::HostBytes(std::move(partial.block));
}

bool TransferAssembler::IsOver(const Chunk& chunk) {
  absl::MutexLock lock(&mu_);
  const auto it = partial_.find(chunk.transfer);
  if (it == partial_.end()) return false;
  Partial& partial = it->second;
  if (chunk.attempt < partial.attempt) return true;
  if (chunk.attempt > partial.attempt) {
    partial = Partial();
    partial.attempt = chunk.attempt;
  }
  return partial.refused;
}

void TransferAssembler::Finish(TransferId transfer, bool from_peer) {
  absl::MutexLock lock(&mu_);
  partial_.erase(transfer);
  if (!from_peer || !finished_.insert(transfer).second) return;
  finished_order_.push_back(transfer);
  if (finished_order_.size() <= kFinishedMax) return;
  finished_.erase(finished_order_.front());
  finished_order_.pop_front();
}

TransferAssembler::Outcome TransferAssembler::AddFromPeer(Chunk chunk) {
  {
    absl::MutexLock lock(&mu_);
    if (finished_.contains(chunk.transfer)) return {true, absl::OkStatus()};
  }
  if (IsOver(chunk)) return {};
  // The peer's own error is the transfer's value; anything else may go better the next time.
  const bool told = !chunk.error.ok();
  std::vector<int64_t> byte_strides;
  absl::StatusOr<device::HostBytes> bytes = Store(chunk, &byte_strides);
  if (!bytes.ok() && !told) {
    absl::MutexLock lock(&mu_);
    Partial& partial = partial_[chunk.transfer];
    partial = Partial();
    partial.attempt = chunk.attempt;
    partial.refused = true;
    return {false, bytes.status()};
  }
  if (bytes.ok() && *bytes == nullptr) return {};
  Finish(chunk.transfer, /*from_peer=*/true);
  arrived_(chunk.transfer, std::move(bytes), std::move(byte_strides));
  return {true, absl::OkStatus()};
}

void TransferAssembler::AddFromHead(Chunk chunk) {
  std::vector<int64_t> byte_strides;
  absl::StatusOr<device::HostBytes> bytes = Store(chunk, &byte_strides);
  if (bytes.ok() && *bytes == nullptr) return;
  Finish(chunk.transfer, /*from_peer=*/false);
  arrived_(chunk.transfer, std::move(bytes), std::move(byte_strides));
}

}  // namespace causeway::worker
