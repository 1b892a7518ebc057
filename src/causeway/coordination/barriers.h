// Barriers between tasks: all that are named arrive, or all that wait hear why not.
//
// A barrier is one use (`counter`) of an id. The first to arrive fixes the participants and the
// deadline. It ends OK when all have arrived, DEADLINE_EXCEEDED at the deadline, CANCELLED on
// request, or with the status given to FailAll; whoever comes after the end hears the same.
//
// Thread safety: all methods are thread-safe. Callbacks run without the lock, once each.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "causeway/base/timers.h"
#include "causeway/coordination/task_table.h"

namespace causeway::coordination {

class Barriers {
 public:
  using Key = std::pair<std::string, int64_t>;  // id, counter
  using DoneCallback = absl::AnyInvocable<void(absl::Status) &&>;

  Barriers(Timers& timers, TaskTable& tasks);
  // Timers that are due later find the barriers gone.
  ~Barriers();

  // `task` arrives; `tasks` (none: all that are alive) must be the same for all who arrive.
  // INVALID_ARGUMENT (told to `done`, the barrier goes on) when they differ or `task` is not among
  // them; RESOURCE_EXHAUSTED when there are too many barriers.
  // Returns what names the waiting call for Leave; 0 when `done` was called already.
  uint64_t Arrive(const Key& key, int task, std::vector<int> tasks, absl::Duration timeout,
                  DoneCallback done);
  // The caller is gone: its task no longer counts as arrived, and the callback is dropped. False:
  // the callback has run or is about to.
  bool Leave(const Key& key, uint64_t ticket);
  // FAILED_PRECONDITION when it has ended; a barrier nobody has reached yet is cancelled ahead.
  absl::Status Cancel(const Key& key);
  // Ends every barrier that is open.
  void FailAll(const absl::Status& why);

  int64_t open();

 private:
  struct Arrival {
    uint64_t ticket;
    DoneCallback done;
  };
  struct Barrier {
    std::set<int> tasks;
    std::map<int, Arrival> arrived;  // by task
    TimerId deadline;
  };
  using Open = std::map<Key, Barrier>;

  // Removes the barrier and remembers how it ended; the callbacks are the caller's to run.
  Barrier End(Open::iterator it, const absl::Status& how) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Remember(const Key& key, const absl::Status& how) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Tell(Barrier barrier, const absl::Status& how);
  void TimeOut(const Key& key);

  // Cleared by the destructor; timers look at it before they touch anything else.
  struct Life {
    explicit Life(Barriers* owner) : barriers(owner) {}
    absl::Mutex mu;
    Barriers* barriers ABSL_GUARDED_BY(mu);
  };

  Timers& timers_;
  TaskTable& tasks_;
  const std::shared_ptr<Life> life_;

  absl::Mutex mu_;
  uint64_t next_ticket_ ABSL_GUARDED_BY(mu_) = 1;
  Open open_ ABSL_GUARDED_BY(mu_);
  std::map<Key, absl::Status> ended_ ABSL_GUARDED_BY(mu_);
  std::deque<Key> ended_order_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::coordination
