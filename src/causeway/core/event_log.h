// What happened to a cluster's slices, in order, for those who watch: a bounded log with numbers.
//
// Every event has a number that grows by one. Who asks for what came after a number gets it all, or
// is told how many events are forgotten already: nothing is lost silently.
//
// Thread safety: all methods are thread-safe; only After may wait.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "causeway/base/strong_id.h"

namespace causeway::core {

struct ClusterEvent {
  // "lost": a worker of the slice is gone. "back": after a loss the whole slice is in the epoch
  // again. "spare": a standby worker has attached, or (with a slice) has taken a lost one's place.
  std::string kind;
  int slice = -1;  // -1: none
  WorkerId worker = WorkerId(-1);
  EpochId epoch;
  std::string cause;
  absl::Time time;
  uint64_t number = 0;  // given by the log
};

struct EventBatch {
  std::vector<ClusterEvent> events;
  uint64_t next = 0;    // to ask with for what comes afterwards
  uint64_t missed = 0;  // events after the asked number that are forgotten
};

class EventLog {
 public:
  explicit EventLog(size_t events_max) : events_max_(events_max) {}

  void Append(ClusterEvent event);
  // The number of the newest event; 0 when there is none yet.
  uint64_t last() const;
  // What came after the event with number `after`, waiting at most `wait` for the first. A number
  // that was never given (of an earlier head) means: from the beginning.
  EventBatch After(uint64_t after, absl::Duration wait) const;
  // Ends all waits, now and later.
  void Close();

 private:
  const size_t events_max_;
  mutable absl::Mutex mu_;
  uint64_t last_ ABSL_GUARDED_BY(mu_) = 0;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<ClusterEvent> events_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::core
