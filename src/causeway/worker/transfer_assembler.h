// Puts the parts of transfers together, off the graph's thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "causeway/worker/commands.h"
#include "causeway/worker/recent_transfers.h"
#include "causeway/worker/segments.h"

namespace causeway::worker {

// Thread safety: thread-safe; parts of one transfer may come on several threads and in any order.
// `arrived` is called once a transfer, without the lock.
class TransferAssembler {
 public:
  using Arrived = std::function<void(TransferId, absl::StatusOr<device::HostBytes>,
                                     std::vector<int64_t> byte_strides)>;
  explicit TransferAssembler(Arrived arrived) : arrived_(std::move(arrived)) {}

  // What became of a part: more are to come (or it was of an attempt that is over), the transfer
  // is complete, or not OK: this attempt is refused, and a later one will be taken.
  struct Outcome {
    bool complete = false;
    absl::Status refused;
  };
  // A chunk of a worker, which may send the transfer once more.
  Outcome AddFromPeer(Chunk chunk);
  // A chunk of the head: a damaged one becomes the transfer's error.
  void AddFromHead(Chunk chunk);

  // A part that is received straight into its place: BeginPart says where, EndPart that all `size`
  // bytes are there. Nothing that happens in between lets the place go.
  struct Landing {
    char* to = nullptr;  // null: the bytes are to be dropped, and `outcome` is told
    Outcome outcome;
    std::shared_ptr<device::HostBlock> block;
  };
  Landing BeginPart(const Chunk& part, int64_t size);
  Outcome EndPart(const Chunk& part, int64_t size, const Landing& landing);

  // A part that is all of its transfer.
  struct Whole {
    TransferId transfer;
    int attempt = 0;
    std::optional<uint64_t> checksum;
    device::HostBytes bytes;  // null: there was no memory for them
    std::vector<int64_t> byte_strides;
  };
  // One outcome for each, in order.
  std::vector<Outcome> AddWholes(std::vector<Whole> wholes);

  // The rest of an attempt will never come; a later one may.
  void Abandon(TransferId transfer, int attempt);
  // The rest of a transfer will never come.
  void Forget(TransferId transfer);
  // The ids of another head mean nothing here.
  void ForgetAll();
  // Transfers of which a part is here; for tests.
  size_t num_partial();

 private:
  struct Partial {
    std::shared_ptr<device::HostBlock> block;
    std::map<int64_t, int64_t> begun;  // first byte to the one behind the last
    int64_t filled = 0;
    int attempt = 0;
    bool refused = false;  // what is left of this attempt is dropped
    std::vector<int64_t> byte_strides;
  };
  absl::Status Place(const Chunk& part, int64_t size, Partial& partial, Landing& landing)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<device::HostBytes> Map(const Chunk& chunk);
  Outcome AddPart(const Chunk& chunk);
  Outcome Refuse(TransferId transfer, int attempt, absl::Status why);
  Outcome Complete(TransferId transfer, absl::StatusOr<device::HostBytes> bytes,
                   std::vector<int64_t> byte_strides);

  const Arrived arrived_;
  SegmentMaps segments_;
  absl::Mutex mu_;
  absl::flat_hash_map<TransferId, Partial> partial_ ABSL_GUARDED_BY(mu_);
  RecentTransfers finished_ ABSL_GUARDED_BY(mu_){1 << 14};
};

}  // namespace causeway::worker
