// Which node ids are in use, in which life, as the head sees it: the answer to "who is alive?".
//
// XLA calls a node id a task. A task becomes alive when the head hands its id to a worker and ends
// with the epoch, whether its process died or not: survivors go on under fresh ids.
//
// Thread safety: all methods are thread-safe. Callbacks run without the table's lock.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace causeway::coordination {

struct Task {
  int id = 0;
  uint64_t incarnation = 0;  // XLA's random number for the process; 0 until it registers
  bool alive = false;
  absl::Status end;  // why it is not alive
};

struct TaskSnapshot {
  int64_t version = 0;
  std::vector<Task> tasks;  // by id
};

class TaskTable {
 public:
  using WatchCallback = absl::AnyInvocable<void(absl::StatusOr<TaskSnapshot>) &&>;

  // The id belongs to a live worker from now on.
  void Begin(int id);
  // The id is over; unknown ones are ignored.
  void End(int id, const absl::Status& why);
  // All ids are over.
  void EndAll(const absl::Status& why);
  // What the process behind the id calls itself.
  void SetIncarnation(int id, uint64_t incarnation);

  bool IsAlive(int id);
  // Why the id is over; OK while it is alive, or when it is not known.
  absl::Status EndOf(int id);
  std::vector<int> Alive();
  TaskSnapshot Snapshot();
  // Calls `done` when the version is above `version`: before returning (then the result is 0) or
  // later. RESOURCE_EXHAUSTED when too many watch.
  uint64_t Watch(int64_t version, WatchCallback done);
  // True: the callback was dropped. False: it has run or is about to.
  bool CancelWatch(uint64_t watch);
  void FailWatches(const absl::Status& why);

 private:
  struct Watcher {
    int64_t version;
    WatchCallback done;
  };
  using Watchers = std::map<uint64_t, Watcher>;

  void EndLocked(Task& task, const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  TaskSnapshot SnapshotLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Watchers who are due, to be called with the snapshot after the lock.
  std::pair<Watchers, TaskSnapshot> Due() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static void Tell(std::pair<Watchers, TaskSnapshot> due);

  absl::Mutex mu_;
  int64_t version_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<int, Task> tasks_ ABSL_GUARDED_BY(mu_);
  uint64_t next_watch_ ABSL_GUARDED_BY(mu_) = 1;
  Watchers watchers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::coordination
