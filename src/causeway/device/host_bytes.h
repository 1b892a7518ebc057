// Ref-counted contiguous host memory: what travels between the network and a device.
//
// Blocks that are allocated here start on a 64-byte boundary, so that XLA's CPU client can use them
// without a copy. A block is filled by its only owner and never changes once it is shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"

namespace causeway::device {

class HostBlock;
using HostBytes = std::shared_ptr<const HostBlock>;

class HostBlock {
 public:
  // Uninitialised memory of `size` bytes. Returns null when the machine has not that much.
  static std::shared_ptr<HostBlock> Allocate(size_t size);
  // As many blocks, in order. Neighbours that are small lie in one allocation of at most 16 KiB,
  // which lives as long as any of them. Empty when the machine has not that much.
  static std::vector<std::shared_ptr<HostBlock>> AllocateAll(absl::Span<const size_t> sizes);
  // Takes over a string; its alignment is the allocator's.
  static HostBytes FromString(std::string bytes);
  // Memory that lives as long as `owner`.
  static HostBytes Borrow(const char* data, size_t size, std::shared_ptr<void> owner);

  const char* data() const { return data_; }
  size_t size() const { return size_; }
  // Only before the block is shared, and only on blocks that were allocated here.
  char* mutable_data() { return const_cast<char*>(data_); }

 private:
  struct Run;
  static std::shared_ptr<HostBlock> Make(const char* data, size_t size,
                                         std::shared_ptr<void> owner);
  HostBlock(const char* data, size_t size, std::shared_ptr<void> owner)
      : data_(data), size_(size), owner_(std::move(owner)) {}

  const char* const data_;
  const size_t size_;
  const std::shared_ptr<void> owner_;
};

}  // namespace causeway::device
