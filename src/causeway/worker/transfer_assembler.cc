// Chunks into blocks, with their checksums verified.
#include "causeway/worker/transfer_assembler.h"

#include <cstring>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"

namespace causeway::worker {
namespace {

absl::Status Verify(const Chunk& chunk) {
  if (!chunk.checksum.has_value()) return absl::OkStatus();
  if (XXH3_64bits(chunk.bytes.data(), chunk.bytes.size()) == *chunk.checksum) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat("transfer ", chunk.transfer.value(),
                                          " was damaged on the network at byte ", chunk.offset));
}

}  // namespace

absl::StatusOr<device::HostBytes> TransferAssembler::Store(Chunk& chunk,
                                                           std::vector<int64_t>* byte_strides) {
  if (!chunk.error.ok()) return chunk.error;
  if (absl::Status damaged = Verify(chunk); !damaged.ok()) return damaged;
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

void TransferAssembler::Add(Chunk chunk) {
  std::vector<int64_t> byte_strides;
  absl::StatusOr<device::HostBytes> bytes = Store(chunk, &byte_strides);
  if (bytes.ok() && *bytes == nullptr) return;
  {
    absl::MutexLock lock(&mu_);
    partial_.erase(chunk.transfer);
  }
  arrived_(chunk.transfer, std::move(bytes), std::move(byte_strides));
}

}  // namespace causeway::worker
