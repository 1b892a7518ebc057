// Runs of programs over several devices, whose failures XLA must not hear of.
#pragma once

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace causeway::callbacks {

// A callback that fails ends its program on its own device alone. The devices that wait for that
// one in a collective are not told by XLA, and nothing reaches those that wait in this process's
// memory. So the callback succeeds with zeros, all devices come to the end, and whoever launched
// the program learns then that it has failed. The further callbacks of that run are not made: what
// they would be given comes from zeros.
//
// A program that does not end with zeros, such as a loop until a callback says so, gets kPatience.
// From then on its callbacks fail as any others do, and Overdue() tells.
// Thread safety: thread-safe.
class HeldRuns {
 public:
  static constexpr absl::Duration kPatience = absl::Seconds(30);

  // Before the launch. The run's number is used by no other launch until Release. A shared run has
  // this number on all workers that take part in it.
  void Hold(int64_t run, bool shared);
  // The launch has ended, or did not come about. The first failure, or OK.
  absl::Status Release(int64_t run);

  struct Found {
    bool shared = false;
    absl::Status failure;  // not OK: the callback is not to be made
    bool zeros = false;    // and it is to succeed with zeros
  };
  Found Find(int64_t run, absl::Time now) const;
  // Whether the callback that failed is to succeed with zeros.
  bool Fail(int64_t run, const absl::Status& why, absl::Time now);

  // The failure of a run that has not ended for kPatience since then, or OK.
  absl::Status Overdue(absl::Time now) const;

 private:
  struct Run {
    bool shared = false;
    absl::Status failure;
    absl::Time failed = absl::InfiniteFuture();
  };
  mutable absl::Mutex mu_;
  absl::flat_hash_map<int64_t, Run> runs_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::callbacks
