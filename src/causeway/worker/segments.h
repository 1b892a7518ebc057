// Large blocks for other workers of this machine: memory that both sides have mapped and use again.
//
// New pages cost several times what a copy into old ones costs. So the sender keeps its segments,
// and the receiver keeps their mappings. A segment is handed over by one more name in the sender's
// folder (base/shared_memory.h); the receiver removes that name when it is done with the bytes, and
// then the sender may fill the segment again. No message says so, and neither side's death leaves
// the other with a segment that changes under it.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "causeway/base/shared_memory.h"
#include "causeway/device/host_bytes.h"

namespace causeway::worker {

// The sender's segments. Thread safety: thread-safe.
class SegmentPool {
 public:
  struct Limits {
    int64_t total_bytes = int64_t{8} << 30;  // in receivers' hands and spare
    int64_t spare_bytes = int64_t{1} << 30;
  };
  // The folder is borrowed.
  SegmentPool(SharedFolder* folder, Limits limits) : folder_(folder), limits_(limits) {}

  // Copies bytes (more than 0) into a segment and returns the name for the receiver to open.
  // `mark` is part of the name. RESOURCE_EXHAUSTED when the limit or the machine's memory is met.
  absl::StatusOr<std::string> Hand(const char* data, int64_t size, const std::string& mark);
  // Removes the names that were given out under `mark`: nobody will open or release them.
  void Revoke(const std::string& mark) { folder_->RemoveMarked(mark); }

  int64_t total_bytes();

 private:
  using Segment = std::shared_ptr<SharedFile>;
  // A segment with these bytes in it.
  absl::StatusOr<Segment> Fill(const char* data, int64_t size);
  void Trim() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  SharedFolder* const folder_;
  const Limits limits_;
  absl::Mutex mu_;
  std::list<Segment> segments_ ABSL_GUARDED_BY(mu_);  // known here, the latest used first
  int64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;            // those being filled too
};

// The receiver's mappings. Thread safety: thread-safe.
class SegmentMaps {
 public:
  ~SegmentMaps();
  // The first `size` bytes of a segment. Its name goes when the bytes are released.
  absl::StatusOr<device::HostBytes> Open(const std::string& name, int64_t size);

 private:
  struct Map;
  void DropDead() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Mutex mu_;
  absl::flat_hash_map<uint64_t, std::shared_ptr<Map>> maps_ ABSL_GUARDED_BY(mu_);  // by inode
};

}  // namespace causeway::worker
