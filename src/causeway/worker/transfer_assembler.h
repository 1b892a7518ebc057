// Puts the chunks of transfers together, off the graph's thread.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "causeway/worker/commands.h"

namespace causeway::worker {

// Thread safety: thread-safe; the chunks of one transfer come from one thread. `arrived` is called
// once a transfer, without the lock.
class TransferAssembler {
 public:
  using Arrived = std::function<void(TransferId, absl::StatusOr<device::HostBytes>,
                                     std::vector<int64_t> byte_strides)>;
  explicit TransferAssembler(Arrived arrived) : arrived_(std::move(arrived)) {}

  void Add(Chunk chunk);

 private:
  struct Partial {
    std::shared_ptr<device::HostBlock> block;
    int64_t filled = 0;
    std::vector<int64_t> byte_strides;
  };
  // OK and a null block: more chunks are to come.
  absl::StatusOr<device::HostBytes> Store(Chunk& chunk, std::vector<int64_t>* byte_strides);

  const Arrived arrived_;
  absl::Mutex mu_;
  absl::flat_hash_map<TransferId, Partial> partial_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::worker
