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
    absl::Time queued;
    bool network = false;     // never through a segment (again)
    bool in_segment = false;
    bool counted = false;     // in sent_
    int64_t next = 0;         // bytes that lanes have taken
    uint32_t lanes = 0;       // that have taken some
    int64_t size() const { return bytes.ok() ? static_cast<int64_t>((*bytes)->size()) : 0; }
  };
  using ItemRef = std::shared_ptr<Item>;
  // What a lane sends next, in one frame: whole items, or a part of one.
  struct Work {
    std::vector<ItemRef> items;
    std::vector<int> attempts;  // the items' own
    bool is_part = false;
    int64_t offset = 0, size = 0;
  };

  void Queue(ItemRef item, bool first) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool HasWork(int lane) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Work NextWork(int lane) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Take(Work& work, const ItemRef& item, int lane) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool TakesSegment(const Item& item) const;
  // The segment that holds an item; "" = it has to take the network, and is queued for that.
  std::string HandSegment(const ItemRef& item);
  uint64_t Checksum(const char* bytes, int64_t size);
  // Those of one reply.
  void Confirmed(const std::vector<TransferId>& transfers);
  void Refused(TransferId transfer, int attempt, absl::Status why);
  // Puts what took a lane and is not confirmed back into the queue, or gives it up.
  void Broken(int lane, const absl::Status& why);
  void Again(ItemRef item, const absl::Status& why, std::vector<ItemRef>* lost)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void GiveUp(const std::vector<ItemRef>& lost, const absl::Status& why);

  const Options options_;
  const Failed failed_;
  const std::string mark_;  // in the names of segments for this peer
  std::atomic<int64_t> chunks_{0};

  absl::Mutex mu_;
  std::deque<ItemRef> small_ ABSL_GUARDED_BY(mu_);  // small blocks, and those for segments
  std::deque<ItemRef> large_ ABSL_GUARDED_BY(mu_);  // what goes in parts
  bool small_is_next_ ABSL_GUARDED_BY(mu_) = true;
  absl::flat_hash_map<TransferId, ItemRef> sent_ ABSL_GUARDED_BY(mu_);
  int64_t sent_bytes_ ABSL_GUARDED_BY(mu_) = 0;  // of those in sent_
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::unique_ptr<class PeerLane>> lanes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::worker
