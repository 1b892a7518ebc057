// Launches that a living member never starts: who is missing, and what it waits for.
//
// A member is inside a launch once its ledger has admitted it. Time counts only while some member is
// inside and another, which has ended everything before, is not: a launch that merely computes, or
// waits for its turn behind one that does, is never judged. Both are known from heartbeats, so the
// bound is as fine as they are.
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/probes.h"
#include "causeway/core/epochs.h"

namespace causeway::core {

void Epochs::Reported(WorkerId place, Progress progress) {
  At(place).progress = std::move(progress);
}

void Epochs::Watch(absl::Time now) {
  std::map<LaunchSeq, Missing> missing;
  std::map<LaunchSeq, WorkerId> inside;
  for (WorkerId place : Living()) {
    const Member& member = At(place);
    if (member.pending.empty()) continue;
    const LaunchSeq next = member.pending.front();
    if (member.progress.epoch == epoch_ && member.progress.admitted >= next) {
      for (LaunchSeq seq : member.pending) {
        if (seq <= member.progress.admitted) inside.try_emplace(seq, place);
      }
    } else {
      missing.try_emplace(next, Missing{place, now});
    }
  }
  std::map<LaunchSeq, Missing> still;
  for (const auto& [seq, who] : missing) {
    if (!inside.contains(seq)) continue;
    const auto before = missing_.find(seq);
    const bool known = before != missing_.end() && before->second.member == who.member;
    still.emplace(seq, known ? before->second : who);
  }
  missing_ = std::move(still);
  for (const auto& [seq, who] : missing_) {
    if (now - who.since < options_.launch_start_max) continue;
    const Progress& progress = At(who.member).progress;
    REACHED("epochs.launch_never_started");
    Change(absl::DeadlineExceededError(absl::StrCat(
               "worker ", who.member.value(), " has not started launch ", seq.value(), " for ",
               absl::FormatDuration(now - who.since), " while worker ", inside[seq].value(),
               " waits inside it: ",
               progress.waiting == seq ? progress.waits_for : "it has not come to it yet",
               "; run the program again, and if it stops there again restart that worker")),
           now);
    return;
  }
}

}  // namespace causeway::core
