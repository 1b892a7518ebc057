// Which multi-worker launches may be issued here, and which are known good: the fence.
//
// Collectives carry no tag, so a launch that one worker skips makes later ones pair up wrongly. The
// ledger therefore (1) lets launches of an epoch through in growing order only, (2) closes the epoch
// for good on this worker at the first launch that fails or is skipped, and (3) reports success in
// order, so that the head never shows a value that depends on an unconfirmed launch.
//
//   open --Refuse / failed Complete--> fenced --Abort (head)--> aborted --OpenEpoch--> open (next)
//
// Thread safety: thread-safe. `emit` is called without the lock, in order for one caller's thread.
#pragma once

#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "causeway/base/strong_id.h"
#include "causeway/worker/commands.h"

namespace causeway::worker {

class LaunchLedger {
 public:
  explicit LaunchLedger(std::function<void(Event)> emit) : emit_(std::move(emit)) {}

  // Before a launch is issued. OK counts it as in flight. An error says why it must not run: the
  // cause of the abort or of the fence; a repeated or backward `seq` fences the epoch itself.
  absl::Status Admit(EpochId epoch, LaunchSeq seq);

  // A launch that was not admitted, because an argument is in error: fences and reports.
  void Refuse(EpochId epoch, LaunchSeq seq, const absl::Status& cause);

  // An admitted launch has ended. Called in launch order (sync failures may come earlier).
  void Complete(EpochId epoch, LaunchSeq seq, const absl::Status& status);

  // The head gave up epochs up to `epoch`.
  void Abort(EpochId epoch, const absl::Status& cause);
  bool aborted(EpochId epoch) const;

  // From now on launches of `epoch` run and older ones do not.
  void OpenEpoch(EpochId epoch);

  // Forgets all epochs: another life of this worker begins. Nothing may be in flight.
  void Reset();

  // Waits until nothing is in flight. False after `timeout`.
  bool WaitIdle(absl::Duration timeout);
  int inflight() const;
  std::vector<LaunchSeq> launches_inflight() const;  // in the order of their admission
  // Those in flight whose epoch was given up: only breaking collectives off is sure to end them.
  int broken_inflight() const;
  // The open epoch and the latest launch that was admitted in it.
  std::pair<EpochId, LaunchSeq> admitted() const;
  // What stands against launches of `epoch`; OK when nothing.
  absl::Status Verdict(EpochId epoch) const;

 private:
  absl::Status VerdictLocked(EpochId epoch) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Closes `epoch` at `seq`; returns the event to emit, if this is the first reason.
  bool FenceLocked(EpochId epoch, LaunchSeq seq, const absl::Status& cause)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::function<void(Event)> emit_;

  mutable absl::Mutex mu_;
  EpochId current_ ABSL_GUARDED_BY(mu_);
  LaunchSeq last_ ABSL_GUARDED_BY(mu_);
  std::vector<LaunchSeq> inflight_ ABSL_GUARDED_BY(mu_);  // of the current epoch
  EpochId fenced_ ABSL_GUARDED_BY(mu_);  // 0: no fence
  LaunchSeq fenced_at_ ABSL_GUARDED_BY(mu_);
  absl::Status fence_cause_ ABSL_GUARDED_BY(mu_);
  EpochId aborted_ ABSL_GUARDED_BY(mu_);  // and all before
  absl::Status abort_cause_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::worker
