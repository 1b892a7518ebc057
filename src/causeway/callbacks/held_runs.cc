// The table of runs, from their launch to their end.
#include "causeway/callbacks/held_runs.h"

#include <utility>

#include "causeway/base/check.h"

namespace causeway::callbacks {

void HeldRuns::Hold(int64_t run, bool shared) {
  absl::MutexLock lock(&mu_);
  runs_[run] = Run{.shared = shared};
}

absl::Status HeldRuns::Release(int64_t run) {
  absl::MutexLock lock(&mu_);
  const auto it = runs_.find(run);
  if (it == runs_.end()) return absl::OkStatus();
  absl::Status failure = std::move(it->second.failure);
  runs_.erase(it);
  return failure;
}

HeldRuns::Found HeldRuns::Find(int64_t run, absl::Time now) const {
  absl::MutexLock lock(&mu_);
  const auto it = runs_.find(run);
  if (it == runs_.end()) return {};
  return {.shared = it->second.shared,
          .failure = it->second.failure,
          .zeros = now - it->second.failed < kPatience};
}

bool HeldRuns::Fail(int64_t run, const absl::Status& why, absl::Time now) {
  CHECK(!why.ok());
  absl::MutexLock lock(&mu_);
  const auto it = runs_.find(run);
  if (it == runs_.end()) return false;
  if (it->second.failure.ok()) {
    it->second.failure = why;
    it->second.failed = now;
  }
  return now - it->second.failed < kPatience;
}

absl::Status HeldRuns::Overdue(absl::Time now) const {
  absl::MutexLock lock(&mu_);
  for (const auto& [number, run] : runs_) {
    if (now - run.failed >= kPatience) return run.failure;
  }
  return absl::OkStatus();
}

}  // namespace causeway::callbacks
