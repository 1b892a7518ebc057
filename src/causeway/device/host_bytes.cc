// Allocation of host memory blocks.
#include "causeway/device/host_bytes.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <list>
#include <new>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace causeway::device {
namespace {

constexpr size_t kAlignment = 64;
// Blocks from here on are made of huge pages: to touch a new page costs several times what copying
// into it does, and small pages are 512 times as many.
constexpr size_t kHugePage = size_t{2} << 20;
// Freed large blocks that are kept for the next transfers; those that were freed first go first.
constexpr size_t kSpareBytesMax = size_t{512} << 20;
// Small pieces share allocations up to this size: one that lives for long holds no more than that.
constexpr size_t kRunBytes = 16 << 10;

size_t Aligned(size_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

// Large blocks that nobody uses. Thread safety: thread-safe.
class Spares {
 public:
  // Never destroyed: blocks may be freed while the process ends.
  static Spares& Get() {
    static Spares* const spares = new Spares;
    return *spares;
  }

  // `size` is a multiple of kHugePage; it becomes what the block really has. Null: no memory.
  void* Take(size_t* size) {
    {
      absl::MutexLock lock(&mu_);
      auto best = free_.end();
      for (auto it = free_.begin(); it != free_.end(); ++it) {
        if (it->size < *size || it->size > *size + *size / 2) continue;
        if (best == free_.end() || it->size < best->size) best = it;
      }
      if (best != free_.end()) {
        const Spare found = *best;
        free_.erase(best);
        bytes_ -= found.size;
        *size = found.size;
        return found.memory;
      }
    }
    // More than is wanted, so that a huge page's boundary lies inside; the rest goes back.
    void* const mapped = ::mmap(nullptr, *size + kHugePage, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    char* const first = static_cast<char*>(mapped);
    const size_t skip = -reinterpret_cast<uintptr_t>(first) & (kHugePage - 1);
    if (skip > 0) (void)::munmap(first, skip);
    if (skip < kHugePage) (void)::munmap(first + skip + *size, kHugePage - skip);
    (void)::madvise(first + skip, *size, MADV_HUGEPAGE);  // a wish
    return first + skip;
  }

  void Put(void* memory, size_t size) {
    std::list<Spare> over;  // given back without the lock: that takes long
    if (size > kSpareBytesMax) {
      over.push_back({memory, size});
    } else {
      absl::MutexLock lock(&mu_);
      free_.push_front({memory, size});
      bytes_ += size;
      while (bytes_ > kSpareBytesMax) {
        bytes_ -= free_.back().size;
        over.splice(over.end(), free_, std::prev(free_.end()));
      }
    }
    for (const Spare& spare : over) (void)::munmap(spare.memory, spare.size);
  }

 private:
  struct Spare {
    void* memory;
    size_t size;
  };
  absl::Mutex mu_;
  std::list<Spare> free_ ABSL_GUARDED_BY(mu_);  // the latest first; a few hundred at most
  size_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace

std::shared_ptr<HostBlock> HostBlock::Make(const char* data, size_t size,
                                           std::shared_ptr<void> owner) {
  // One allocation; only here may it be made.
  struct Made : HostBlock {
    Made(const char* data, size_t size, std::shared_ptr<void> owner)
        : HostBlock(data, size, std::move(owner)) {}
  };
  return std::make_shared<Made>(data, size, std::move(owner));
}

std::shared_ptr<HostBlock> HostBlock::Allocate(size_t size) {
  if (size > SIZE_MAX / 2) return nullptr;
  std::shared_ptr<void> owner;
  if (size >= kHugePage) {
    size_t rounded = (size + kHugePage - 1) / kHugePage * kHugePage;
    void* const memory = Spares::Get().Take(&rounded);
    if (memory == nullptr) return nullptr;
    owner = std::shared_ptr<void>(memory, [rounded](void* p) { Spares::Get().Put(p, rounded); });
  } else {
    // Aligned by hand: aligned_alloc() takes several times as long as malloc() for small sizes.
    void* const memory = std::malloc(size + kAlignment);
    if (memory == nullptr) return nullptr;
    const size_t skip = -reinterpret_cast<uintptr_t>(memory) & (kAlignment - 1);
    owner = std::shared_ptr<void>(static_cast<char*>(memory) + skip,
                                  [memory](void*) { std::free(memory); });
  }
  const char* const data = static_cast<const char*>(owner.get());
  return Make(data, size, std::move(owner));
}

// Blocks and their bytes in one allocation.
struct HostBlock::Run {
  Run(size_t blocks_max, size_t bytes)
      : memory(static_cast<char*>(
            std::malloc(sizeof(HostBlock) * blocks_max + bytes + kAlignment))),
        next(reinterpret_cast<char*>(
            Aligned(reinterpret_cast<uintptr_t>(memory) + sizeof(HostBlock) * blocks_max))) {}
  ~Run() {
    for (size_t i = 0; i < num_blocks; ++i) blocks()[i].~HostBlock();
    std::free(memory);
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  HostBlock* blocks() { return reinterpret_cast<HostBlock*>(memory); }
  HostBlock* Add(size_t size) {
    auto* const block = new (blocks() + num_blocks++) HostBlock(next, size, nullptr);
    next += Aligned(size);
    return block;
  }
  char* const memory;
  char* next;  // where the next block's bytes lie
  size_t num_blocks = 0;
};

std::vector<std::shared_ptr<HostBlock>> HostBlock::AllocateAll(absl::Span<const size_t> sizes) {
  std::vector<std::shared_ptr<HostBlock>> all;
  all.reserve(sizes.size());
  while (all.size() < sizes.size()) {
    const absl::Span<const size_t> rest = sizes.subspan(all.size());
    size_t count = 0, bytes = 0;
    for (; count < rest.size() && rest[count] < kRunBytes; ++count) {
      const size_t with_next = bytes + Aligned(rest[count]);
      if (with_next + sizeof(HostBlock) * (count + 1) > kRunBytes) break;
      bytes = with_next;
    }
    if (count <= 1) {
      all.push_back(Allocate(rest[0]));
      if (all.back() == nullptr) return {};
      continue;
    }
    auto run = std::make_shared<Run>(count, bytes);
    if (run->memory == nullptr) return {};
    for (size_t i = 0; i < count; ++i) all.emplace_back(run, run->Add(rest[i]));
  }
  return all;
}

HostBytes HostBlock::FromString(std::string bytes) {
  auto owner = std::make_shared<std::string>(std::move(bytes));
  const char* data = owner->data();
  const size_t size = owner->size();
  return Make(data, size, std::move(owner));
}

HostBytes HostBlock::Borrow(const char* data, size_t size, std::shared_ptr<void> owner) {
  return Make(data, size, std::move(owner));
}

}  // namespace causeway::device
