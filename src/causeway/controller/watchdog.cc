// Launches that a living worker never starts: who is missing, and what it waits for.
//
// A member is inside a launch once its ledger has admitted it. Time counts only while some member is
// inside and another, which has ended everything before, is not: a launch that merely computes, or
// waits for its turn behind one that does, is never judged. Both are known from heartbeats, so the
// bound is as fine as they are.
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "causeway/base/probes.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"

namespace causeway::controller {

void Controller::WatchLaunches() {
  std::map<LaunchSeq, Missing> missing;
  std::map<LaunchSeq, WorkerId> inside;
  const absl::Time now = clock_.Now();
  for (const WorkerState& worker : workers_) {
    if (!worker.alive || worker.unconfirmed.empty()) continue;
    const LaunchSeq next = worker.unconfirmed.front().first;
    const bool here = worker.progress.epoch == epoch_;
    if (here && worker.progress.admitted >= next) {
      for (const auto& [seq, gate] : worker.unconfirmed) {
        if (seq <= worker.progress.admitted) inside.try_emplace(seq, worker.id);
      }
    } else {
      missing.try_emplace(next, Missing{worker.id, now});
    }
  }
  std::map<LaunchSeq, Missing> still;
  for (const auto& [seq, who] : missing) {
    if (!inside.contains(seq)) continue;
    const auto before = missing_.find(seq);
    const bool known = before != missing_.end() && before->second.worker == who.worker;
    still.emplace(seq, known ? before->second : who);
  }
  missing_ = std::move(still);
  for (const auto& [seq, who] : missing_) {
    if (now - who.since < options_.launch_start_max) continue;
    const wire::LaunchProgress& progress = State(who.worker).progress;
    REACHED("controller.launch_never_started");
    const absl::Status cause = absl::DeadlineExceededError(absl::StrCat(
        "worker ", who.worker.value(), " has not started launch ", seq.value(), " for ",
        absl::FormatDuration(now - who.since), " while worker ", inside[seq].value(),
        " waits inside it: ",
        progress.waiting == seq ? progress.waits_for : "it has not come to it yet",
        "; run the program again, and if it stops there again restart that worker"));
    missing_.clear();
    ChangeEpoch(cause);
    return;
  }
}

}  // namespace causeway::controller
