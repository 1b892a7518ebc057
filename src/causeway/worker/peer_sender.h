// One peer's transfers: queued, sent, confirmed; sent once more when something went wrong.
//
// A transfer is over when the peer confirms it. A stream that breaks, a damaged chunk or a segment
// that cannot be opened gets one more attempt, over the stream and from the first byte; the second
// failure is told to `failed`, and that transfer alone is given up.
// Thread safety: thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
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

namespace causeway::control {
class Data;
class PushBatch;
}  // namespace causeway::control

namespace causeway::worker {

class PeerSender {
 public:
  struct Options {
    WorkerId peer;
    std::string address;  // host:port
    std::string token;
    SegmentPool* segments = nullptr;  // null: the peer does not see this host's memory
    bool checksums = false;
    int64_t damage_chunk = 0;  // fault injection: the n-th chunk is changed on its way
    TransferStats* stats = nullptr;
  };
  using Failed = std::function<void(TransferId, absl::Status)>;
  PeerSender(Options options, Failed failed);
  // What is not confirmed is dropped.
  ~PeerSender();

  // Queues bytes, or the error in their place. Never blocks.
  void Push(TransferId transfer, absl::StatusOr<device::HostBytes> bytes);

 private:
  class Stream;
  struct Item {
    TransferId transfer;
    absl::StatusOr<device::HostBytes> bytes;
    int attempt = 0;
    absl::Time queued;
    bool in_segment = false;
    int64_t size() const { return bytes.ok() ? static_cast<int64_t>((*bytes)->size()) : 0; }
  };
  using ItemRef = std::shared_ptr<Item>;

  void Loop();
  // The items at the head of the queue that go into one message: one, or several small ones.
  std::vector<ItemRef> NextItems() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // False: the stream is broken. `attempt` is the items' own.
  bool Send(Stream& stream, const std::vector<ItemRef>& items, const std::vector<int>& attempts);
  void Describe(const Item& item, int attempt, control::Data* data);
  bool SendLarge(Stream& stream, Item& item, control::PushBatch* batch);
  void AddChecksum(const char* bytes, int64_t size, control::Data* data);
  void Confirmed(TransferId transfer);
  void Refused(TransferId transfer, absl::Status why);
  // Puts what is not confirmed back into the queue, or gives it up.
  void Broken(const absl::Status& why);
  void Again(ItemRef item, const absl::Status& why, std::vector<ItemRef>* lost)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void GiveUp(const std::vector<ItemRef>& lost, const absl::Status& why);

  const Options options_;
  const Failed failed_;
  const std::string mark_;  // in the names of segments for this peer
  int64_t chunks_ = 0;      // the thread's

  absl::Mutex mu_;
  std::deque<ItemRef> queue_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<TransferId, ItemRef> sent_ ABSL_GUARDED_BY(mu_);
  int64_t sent_bytes_ ABSL_GUARDED_BY(mu_) = 0;  // over the stream, not confirmed
  Stream* stream_ ABSL_GUARDED_BY(mu_) = nullptr;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace causeway::worker
