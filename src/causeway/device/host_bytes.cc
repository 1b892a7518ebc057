// Allocation of host memory blocks.
#include "causeway/device/host_bytes.h"

#include <cstdint>
#include <cstdlib>
#include <utility>

namespace causeway::device {
namespace {
constexpr size_t kAlignment = 64;
}  // namespace

std::shared_ptr<HostBlock> HostBlock::Allocate(size_t size) {
  if (size > SIZE_MAX / 2) return nullptr;
  const size_t rounded = (size + kAlignment) / kAlignment * kAlignment;
  void* memory = std::aligned_alloc(kAlignment, rounded);
  if (memory == nullptr) return nullptr;
  std::shared_ptr<void> owner(memory, [](void* p) { std::free(p); });
  return std::shared_ptr<HostBlock>(
      new HostBlock(static_cast<const char*>(memory), size, std::move(owner)));
}

HostBytes HostBlock::FromString(std::string bytes) {
  auto owner = std::make_shared<std::string>(std::move(bytes));
  const char* data = owner->data();
  const size_t size = owner->size();
  return HostBytes(new HostBlock(data, size, std::move(owner)));
}

HostBytes HostBlock::Borrow(const char* data, size_t size, std::shared_ptr<void> owner) {
  return HostBytes(new HostBlock(data, size, std::move(owner)));
}

}  // namespace causeway::device
