// The network between fake devices, as untagged as gloo: messages pair up by arrival order alone.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace causeway::device {

// One lock for a whole emulated cluster: devices run their streams under it too, which makes every
// test with one thread deterministic.
// Thread safety: mu() guards everything; callbacks run under it.
class FakeFabric {
 public:
  using Message = std::vector<double>;
  using Done = std::function<void(absl::StatusOr<Message>)>;

  absl::Mutex* mu() ABSL_LOCK_RETURNED(mu_) { return &mu_; }

  // Device `id` adds `value` to the next open round of the set `ids`. The n-th message of each
  // member makes the n-th sum, whatever the senders meant. `done` runs when the round is full, or
  // with a PeerFailure when the set's connections are cut.
  void Post(const std::set<int>& ids, int id, Message value, Done done)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Cuts all connections of these devices. Every set with one of them is broken for good. Returns
  // how many waiting messages were dropped.
  int Cut(const std::set<int>& ids) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // These devices are gone without a word: what they sent and nobody took is forgotten, and who
  // waits for them waits on.
  void Vanish(const std::set<int>& ids) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

 private:
  struct Waiting {
    Message value;
    Done done;
  };
  struct Communicator {
    std::map<int, std::deque<Waiting>> inbox;  // by member
    bool broken = false;
  };

  absl::Mutex mu_;
  std::map<std::set<int>, Communicator> communicators_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::device
