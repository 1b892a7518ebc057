// Order, fence and confirmation of multi-worker launches.
#include "causeway/worker/launch_ledger.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "causeway/base/check.h"
#include "causeway/base/probes.h"

namespace causeway::worker {

absl::Status LaunchLedger::VerdictLocked(EpochId epoch) const {
  if (PLANTED("ledger.no_epoch_check")) return absl::OkStatus();
  if (epoch <= aborted_) {
    if (!abort_cause_.ok()) return abort_cause_;
    return absl::DataLossError(absl::StrCat("epoch ", epoch.value(), " is over"));
  }
  if (epoch == fenced_) return fence_cause_;
  if (epoch != current_) {
    return absl::DataLossError(absl::StrCat("epoch ", epoch.value(),
                                            " is not the open one on this worker (",
                                            current_.value(), "); run the program again"));
  }
  return absl::OkStatus();
}

bool LaunchLedger::FenceLocked(EpochId epoch, LaunchSeq seq, const absl::Status& cause) {
  if (epoch <= aborted_ || epoch == fenced_) {
    if (epoch == fenced_) fenced_at_ = std::min(fenced_at_, seq);
    return false;
  }
  if (PLANTED("ledger.no_fence")) return false;
  REACHED("ledger.fenced");
  fenced_ = epoch;
  fenced_at_ = seq;
  fence_cause_ = cause;
  return true;
}

absl::Status LaunchLedger::Admit(EpochId epoch, LaunchSeq seq) {
  absl::Status verdict;
  bool report = false;
  {
    absl::MutexLock lock(&mu_);
    verdict = VerdictLocked(epoch);
    if (verdict.ok() && seq <= last_) {
      verdict = absl::InternalError(absl::StrCat(
          "launch ", seq.value(), " came after launch ", last_.value(),
          " of the same epoch; its collectives would pair up wrongly, so the epoch is closed"));
      report = FenceLocked(epoch, seq, verdict);
    }
    if (verdict.ok()) {
      last_ = seq;
      inflight_.push_back(seq);
    }
  }
  if (report) emit_(LaunchFailed{epoch, seq, verdict});
  return verdict;
}

void LaunchLedger::Refuse(EpochId epoch, LaunchSeq seq, const absl::Status& cause) {
  CHECK(!cause.ok());
  bool report;
  {
    absl::MutexLock lock(&mu_);
    report = FenceLocked(epoch, seq, cause);
  }
  if (report) emit_(LaunchFailed{epoch, seq, cause});
}

void LaunchLedger::Complete(EpochId epoch, LaunchSeq seq, const absl::Status& status) {
  bool failed = false, done = false;
  {
    absl::MutexLock lock(&mu_);
    const auto it = std::find(inflight_.begin(), inflight_.end(), seq);
    CHECK(it != inflight_.end());
    inflight_.erase(it);
    if (!status.ok()) {
      failed = FenceLocked(epoch, seq, status);
    } else {
      done = epoch != fenced_ || seq < fenced_at_;
    }
  }
  if (failed) emit_(LaunchFailed{epoch, seq, status});
  if (done) emit_(LaunchDone{epoch, seq});
}

void LaunchLedger::Abort(EpochId epoch, const absl::Status& cause) {
  absl::MutexLock lock(&mu_);
  if (epoch <= aborted_) return;
  aborted_ = epoch;
  abort_cause_ = cause;
}

bool LaunchLedger::aborted(EpochId epoch) const {
  absl::MutexLock lock(&mu_);
  return epoch <= aborted_;
}

void LaunchLedger::OpenEpoch(EpochId epoch) {
  absl::MutexLock lock(&mu_);
  current_ = epoch;
  last_ = LaunchSeq(0);
}

void LaunchLedger::Reset() {
  absl::MutexLock lock(&mu_);
  CHECK(inflight_.empty());
  current_ = fenced_ = aborted_ = EpochId(0);
  last_ = fenced_at_ = LaunchSeq(0);
  fence_cause_ = abort_cause_ = absl::OkStatus();
}

bool LaunchLedger::WaitIdle(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return inflight_.empty(); };
  return mu_.AwaitWithTimeout(absl::Condition(&idle), timeout);
}

int LaunchLedger::inflight() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int>(inflight_.size());
}

std::vector<LaunchSeq> LaunchLedger::launches_inflight() const {
  absl::MutexLock lock(&mu_);
  return inflight_;
}

int LaunchLedger::broken_inflight() const {
  absl::MutexLock lock(&mu_);
  // An epoch opens when nothing of the older one is in flight, so all are of the current one.
  return current_ <= aborted_ ? static_cast<int>(inflight_.size()) : 0;
}

std::pair<EpochId, LaunchSeq> LaunchLedger::admitted() const {
  absl::MutexLock lock(&mu_);
  return {current_, last_};
}

absl::Status LaunchLedger::Verdict(EpochId epoch) const {
  absl::MutexLock lock(&mu_);
  return VerdictLocked(epoch);
}

}  // namespace causeway::worker
