// Parts into blocks, with their checksums verified.
#include "causeway/worker/transfer_assembler.h"

#include <cstring>
#include <iterator>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "causeway/base/shared_memory.h"
#include "causeway/base/status_macros.h"

namespace causeway::worker {
namespace {

bool IsOfPeer(TransferId transfer) { return transfer.value() >> 48 != 0; }

absl::Status Verify(TransferId transfer, int64_t offset, std::optional<uint64_t> checksum,
                    absl::string_view bytes) {
  if (!checksum.has_value()) return absl::OkStatus();
  if (XXH3_64bits(bytes.data(), bytes.size()) == *checksum) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("transfer ", transfer.value(),
                                          " was damaged on its way at byte ", offset));
}

absl::Status NoMemory(absl::string_view what) {
  return absl::ResourceExhaustedError(absl::StrCat("there is no host memory for ", what));
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
  RETURN_IF_ERROR(Verify(chunk.transfer, chunk.offset, chunk.checksum,
                         absl::string_view(block->data(), block->size())));
  if (!SharedFolder::IsCrowded()) return block;
  // The array may live for long; what is shared must be left to what is on its way.
  auto own = device::HostBlock::Allocate(block->size());
  if (own == nullptr) return block;
  std::memcpy(own->mutable_data(), block->data(), block->size());
  return device::HostBytes(std::move(own));
}

absl::Status TransferAssembler::Place(const Chunk& part, int64_t size, Partial& partial,
                                      Landing& landing) {
  if (part.total < 0) {
    return absl::InvalidArgumentError(absl::StrCat("transfer ", part.transfer.value(), " of ",
                                                   part.total, " bytes; sizes start at 0"));
  }
  if (partial.block == nullptr) {
    partial.block = device::HostBlock::Allocate(static_cast<size_t>(part.total));
    if (partial.block == nullptr) {
      return NoMemory(absl::StrCat("a transfer of ", part.total, " bytes"));
    }
    partial.byte_strides = part.byte_strides;
  }
  const auto total = static_cast<int64_t>(partial.block->size());
  bool fits = part.total == total && size >= 0 && part.offset >= 0 && part.offset <= total &&
              size <= total - part.offset;
  if (fits && size > 0) {
    const auto after = partial.begun.upper_bound(part.offset);
    if (after != partial.begun.end() && after->first < part.offset + size) fits = false;
    if (after != partial.begun.begin() && std::prev(after)->second > part.offset) fits = false;
    if (fits) partial.begun[part.offset] = part.offset + size;
  }
  if (!fits) {
    return absl::DataLossError(
        absl::StrCat("transfer ", part.transfer.value(), " of ", total, " bytes got ", size,
                     " at byte ", part.offset, " of ", part.total,
                     ", which lie outside of it or have come already"));
  }
  landing.block = partial.block;
  landing.to = partial.block->mutable_data() + part.offset;
  return absl::OkStatus();
}

TransferAssembler::Landing TransferAssembler::BeginPart(const Chunk& part, int64_t size) {
  Landing landing;
  absl::Status placed;
  {
    absl::MutexLock lock(&mu_);
    if (finished_.Contains(part.transfer)) {
      landing.outcome.complete = true;
      return landing;
    }
    Partial& partial = partial_[part.transfer];
    if (part.attempt > partial.attempt) {
      partial = Partial();
      partial.attempt = part.attempt;
    }
    if (part.attempt < partial.attempt || partial.refused) return landing;
    placed = Place(part, size, partial, landing);
  }
  if (!placed.ok()) landing.outcome = Refuse(part.transfer, part.attempt, std::move(placed));
  return landing;
}

TransferAssembler::Outcome TransferAssembler::EndPart(const Chunk& part, int64_t size,
                                                      const Landing& landing) {
  if (landing.to == nullptr) return landing.outcome;
  absl::Status whole = Verify(part.transfer, part.offset, part.checksum,
                              absl::string_view(landing.to, static_cast<size_t>(size)));
  if (!whole.ok()) return Refuse(part.transfer, part.attempt, std::move(whole));
  std::vector<int64_t> byte_strides;
  {
    absl::MutexLock lock(&mu_);
    const auto it = partial_.find(part.transfer);
    // A later attempt may have begun meanwhile, or the transfer was given up.
    if (it == partial_.end() || it->second.block != landing.block) return {};
    it->second.filled += size;
    if (it->second.filled < static_cast<int64_t>(landing.block->size())) return {};
    byte_strides = std::move(it->second.byte_strides);
  }
  return Complete(part.transfer, device::HostBytes(landing.block), std::move(byte_strides));
}

TransferAssembler::Outcome TransferAssembler::Refuse(TransferId transfer, int attempt,
                                                     absl::Status why) {
  absl::MutexLock lock(&mu_);
  if (finished_.Contains(transfer)) return {true, absl::OkStatus()};
  Partial& partial = partial_[transfer];
  if (attempt < partial.attempt || (attempt == partial.attempt && partial.refused)) return {};
  partial = Partial();
  partial.attempt = attempt;
  partial.refused = true;
  return {false, std::move(why)};
}

TransferAssembler::Outcome TransferAssembler::Complete(TransferId transfer,
                                                       absl::StatusOr<device::HostBytes> bytes,
                                                       std::vector<int64_t> byte_strides) {
  {
    absl::MutexLock lock(&mu_);
    partial_.erase(transfer);
    // What is left of one that failed must not begin anew.
    if (IsOfPeer(transfer) || !bytes.ok()) {
      if (!finished_.Add(transfer)) return {true, absl::OkStatus()};
    }
  }
  arrived_(transfer, std::move(bytes), std::move(byte_strides));
  return {true, absl::OkStatus()};
}

std::vector<TransferAssembler::Outcome> TransferAssembler::AddWholes(std::vector<Whole> wholes) {
  std::vector<Outcome> outcomes(wholes.size());
  for (size_t i = 0; i < wholes.size(); ++i) {
    Whole& whole = wholes[i];
    absl::Status here = whole.bytes == nullptr
                            ? NoMemory("a small block")
                            : Verify(whole.transfer, 0, whole.checksum,
                                     absl::string_view(whole.bytes->data(), whole.bytes->size()));
    if (here.ok()) continue;
    whole.bytes = nullptr;
    outcomes[i] = Refuse(whole.transfer, whole.attempt, std::move(here));
  }
  {
    absl::MutexLock lock(&mu_);
    for (size_t i = 0; i < wholes.size(); ++i) {
      Whole& whole = wholes[i];
      if (whole.bytes == nullptr) continue;
      if (!partial_.empty()) {
        const auto it = partial_.find(whole.transfer);
        if (it != partial_.end() && (it->second.attempt > whole.attempt ||
                                     (it->second.attempt == whole.attempt && it->second.refused))) {
          whole.bytes = nullptr;
          continue;
        }
        if (it != partial_.end()) partial_.erase(it);
      }
      outcomes[i].complete = true;
      const bool is_new = IsOfPeer(whole.transfer) ? finished_.Add(whole.transfer)
                                                   : !finished_.Contains(whole.transfer);
      if (!is_new) whole.bytes = nullptr;
    }
  }
  for (Whole& whole : wholes) {
    if (whole.bytes == nullptr) continue;
    arrived_(whole.transfer, std::move(whole.bytes), std::move(whole.byte_strides));
  }
  return outcomes;
}

TransferAssembler::Outcome TransferAssembler::AddPart(const Chunk& chunk) {
  const auto size = static_cast<int64_t>(chunk.bytes.size());
  if (chunk.offset == 0 && chunk.total == size) {
    std::shared_ptr<device::HostBlock> block = device::HostBlock::Allocate(chunk.bytes.size());
    if (block != nullptr && size > 0) {
      std::memcpy(block->mutable_data(), chunk.bytes.data(), chunk.bytes.size());
    }
    return AddWholes({{chunk.transfer, chunk.attempt, chunk.checksum, std::move(block),
                       chunk.byte_strides}})
        .front();
  }
  const Landing landing = BeginPart(chunk, size);
  if (landing.to != nullptr && size > 0) {
    std::memcpy(landing.to, chunk.bytes.data(), chunk.bytes.size());
  }
  return EndPart(chunk, size, landing);
}

TransferAssembler::Outcome TransferAssembler::AddFromPeer(Chunk chunk) {
  // The peer's own error is the transfer's value; anything else may go better the next time.
  if (!chunk.error.ok()) return Complete(chunk.transfer, chunk.error, {});
  if (chunk.segment.empty()) return AddPart(chunk);
  {
    absl::MutexLock lock(&mu_);
    if (finished_.Contains(chunk.transfer)) return {true, absl::OkStatus()};
    const auto it = partial_.find(chunk.transfer);
    if (it != partial_.end() && it->second.attempt > chunk.attempt) return {};
  }
  absl::StatusOr<device::HostBytes> bytes = Map(chunk);
  if (!bytes.ok()) return Refuse(chunk.transfer, chunk.attempt, bytes.status());
  return Complete(chunk.transfer, std::move(bytes), {});
}

void TransferAssembler::AddFromHead(Chunk chunk) {
  Outcome outcome;
  if (!chunk.error.ok()) {
    outcome.refused = chunk.error;
  } else if (chunk.file.empty()) {
    outcome = AddPart(chunk);
  } else {
    absl::StatusOr<device::HostBytes> bytes = Map(chunk);
    Complete(chunk.transfer, std::move(bytes), std::move(chunk.byte_strides));
  }
  if (!outcome.refused.ok()) Complete(chunk.transfer, std::move(outcome.refused), {});
}

void TransferAssembler::Abandon(TransferId transfer, int attempt) {
  absl::MutexLock lock(&mu_);
  const auto it = partial_.find(transfer);
  if (it != partial_.end() && it->second.attempt == attempt) partial_.erase(it);
}

void TransferAssembler::Forget(TransferId transfer) {
  absl::MutexLock lock(&mu_);
  partial_.erase(transfer);
}

void TransferAssembler::ForgetAll() {
  absl::MutexLock lock(&mu_);
  partial_.clear();
  finished_.Clear();
}

size_t TransferAssembler::num_partial() {
  absl::MutexLock lock(&mu_);
  return partial_.size();
}

}  // namespace causeway::worker
