// One peer's transfers: queued, sent, confirmed; sent once more when something went wrong.
//
// Small blocks travel together, and so do the names of segments in shared memory. A large block that
// takes the network is cut into parts, which one or more connections (lanes) take in turns. A
// transfer is over when the peer confirms it. A connection that breaks, a damaged part or a segment
// that cannot be opened gets one more attempt, over the network and from the first byte; the second
// failure is told to `failed`, and that transfer alone is given up.
// Thread safety: thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "causeway/base/strong_id.h"
#include "causeway/device/host_bytes.h"
#include "causeway/worker/segments.h"
#include "causeway/worker/transfer_stats.h"

namespace causeway::worker {

class PeerSender {
 public:
  struct Options {
    WorkerId peer;
    std::string address;  // host:port
    std::string token;
    SegmentPool* segments = nullptr;  // null: the peer does not see this host's memory
    bool checksums = false;
    int lanes = 1;  // connections for large blocks, at most limits::kPushLanesMax
    int64_t damage_chunk = 0;  // fault injection: the n-th chunk is changed on its way
    TransferStats* stats = nullptr;
  };
  using Failed = std::function<void(TransferId, absl::Status)>;
  PeerSender(Options options, Failed failed);
  // What is not confirmed is dropped.
  ~PeerSender();

  // Nothing is sent any more. Never blocks; the destructor is quick once stopped() is true.
  void Stop();
  bool stopped();

  // Queues bytes, or the error in their place. Never blocks.
  void Push(TransferId transfer, absl::StatusOr<device::HostBytes> bytes);

 private:
  friend class PeerLane;
  struct Item {
    TransferId transfer;
    absl::StatusOr<device::HostBytes> bytes;
    int attempt = 0;
    absl::Time queued;        // a small block: when its batch was begun
    bool network = false;     // never through a segment (again)
    bool in_segment = false;
    bool over = false;        // in a batch: confirmed, or queued again as another item
    bool counted = false;     // in sent_
    int64_t next = 0;         // bytes that lanes have taken
    uint32_t lanes = 0;       // that have taken some
    int64_t size() const { return bytes.ok() ? static_cast<int64_t>((*bytes)->size()) : 0; }
  };
  using ItemRef = std::shared_ptr<Item>;
  // Small blocks, or one for a segment: what one frame of lane 0 holds. Once a lane has taken it,
  // its items stay as they are but for `in_segment` and `over`.
  struct Batch {
    std::vector<Item> items;
    absl::Time begun;
    int64_t bytes = 0;
    size_t num_over = 0;
    size_t expected = 0;  // the item that is probably confirmed next
  };
  using BatchRef = std::shared_ptr<Batch>;
  // What a lane sends next, in one frame: a batch, or a part of an item.
  struct Work {
    BatchRef batch;
    ItemRef item;
    int attempt = 0;  // the item's own
    int64_t offset = 0, size = 0;
  };

  void Queue(Item&& item, bool first) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool HasWork(int lane) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Work NextWork(int lane) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool TakesSegment(const Item& item) const;
  // The segment that holds an item; "" = it has to take the network, and is queued for that.
  std::string HandSegment(const BatchRef& batch, Item& item);
  uint64_t Checksum(const char* bytes, int64_t size);
  // Those of one reply.
  void Confirmed(absl::Span<const uint64_t> transfers);
  void Refused(TransferId transfer, int attempt, absl::Status why);
  // Puts what took a lane and is not confirmed back into the queue, or gives it up.
  void Broken(int lane, const absl::Status& why);
  // The item of a batch that is under way; null: there is none.
  Item* Find(TransferId transfer, BatchRef* batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Of a batch under way. Its last item ends the batch, which is then the caller's.
  BatchRef Over(const BatchRef& batch, Item& item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Again(Item item, const absl::Status& why, std::vector<Item>* lost)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AgainLarge(ItemRef item, const absl::Status& why, std::vector<Item>* lost)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void GiveUp(const std::vector<Item>& lost, const absl::Status& why);

  const Options options_;
  const Failed failed_;
  const std::string mark_;  // in the names of segments for this peer
  std::atomic<int64_t> chunks_{0};

  absl::Mutex mu_;
  std::deque<BatchRef> small_ ABSL_GUARDED_BY(mu_);  // the last one is still being filled
  std::deque<ItemRef> large_ ABSL_GUARDED_BY(mu_);  // what goes in parts
  bool small_is_next_ ABSL_GUARDED_BY(mu_) = true;
  // Batches that a lane has taken, in that order, which is the order of the answers too.
  std::deque<BatchRef> under_way_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<TransferId, ItemRef> sent_ ABSL_GUARDED_BY(mu_);  // of large_
  int64_t sent_bytes_ ABSL_GUARDED_BY(mu_) = 0;  // of those that are not confirmed
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::unique_ptr<class PeerLane>> lanes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::worker
