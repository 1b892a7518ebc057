// Puts the chunks of transfers together, off the graph's thread.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "causeway/worker/commands.h"
#include "causeway/worker/segments.h"

namespace causeway::worker {

// Thread safety: thread-safe; the chunks of one transfer come from one thread. `arrived` is called
// once a transfer, without the lock.
class TransferAssembler {
 public:
  using Arrived = std::function<void(TransferId, absl::StatusOr<device::HostBytes>,
                                     std::vector<int64_t> byte_strides)>;
  explicit TransferAssembler(Arrived arrived) : arrived_(std::move(arrived)) {}

  // What became of a chunk: more are to come (or it was of an attempt that is over), the transfer
  // is complete, or not OK: this attempt is refused, and a later one will be taken.
  struct Outcome {
    bool complete = false;
    absl::Status refused;
  };
  // A chunk of a worker, which may send the transfer once more.
  Outcome AddFromPeer(Chunk chunk);
  // A chunk of the head: a damaged one becomes the transfer's error.
  void AddFromHead(Chunk chunk);

 private:
  struct Partial {
    std::shared_ptr<device::HostBlock> block;
    int64_t filled = 0;
    int attempt = 0;
    bool refused = false;  // what is left of this attempt is dropped
    std::vector<int64_t> byte_strides;
  };
  // OK and a null block: more chunks are to come.
  absl::StatusOr<device::HostBytes> Store(Chunk& chunk, std::vector<int64_t>* byte_strides);
  absl::StatusOr<device::HostBytes> Map(const Chunk& chunk);
  bool IsOver(const Chunk& chunk);
  void Finish(TransferId transfer, bool from_peer);

  const Arrived arrived_;
  SegmentMaps segments_;
  absl::Mutex mu_;
  absl::flat_hash_map<TransferId, Partial> partial_ ABSL_GUARDED_BY(mu_);
  // Transfers of peers that arrived lately: one whose confirmation was lost comes again.
  absl::flat_hash_set<TransferId> finished_ ABSL_GUARDED_BY(mu_);
  std::deque<TransferId> finished_order_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::worker
