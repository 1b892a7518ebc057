// Heartbeats: who stopped answering (core/pulse.h) is lost.
#include <algorithm>
#include <utility>

#include "absl/time/time.h"
#include "causeway/base/probes.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"

namespace causeway::controller {

bool Controller::Beats(core::Pulse& pulse, core::WorkerLink& link, absl::Time* next) {
  const core::Pulse::Step step = pulse.Check(clock_.Now());
  if (step == core::Pulse::Step::kLost) return false;
  if (step == core::Pulse::Step::kPing) link.Send(wire::EncodePing(pulse.sent()));
  *next = std::min(*next, pulse.next());
  return true;
}

void Controller::Heartbeat() {
  absl::Time next;
  {
    Locked lock(this);
    if (shut_down_) return;
    next = clock_.Now() + options_.heartbeat;
    for (WorkerState& worker : workers_) {
      if (!worker.alive || Beats(worker.pulse, *worker.link, &next)) continue;
      REACHED("controller.heartbeats_missed");
      GiveUp(worker.id, worker.pulse.why());
    }
    for (size_t i = 0; i < spares_.size();) {
      if (Beats(spares_[i].pulse, *spares_[i].link, &next)) {
        ++i;
        continue;
      }
      const Spare silent = spares_[i];
      silent.link->Close(silent.pulse.why());
      SpareGone(silent.admission.incarnation, silent.pulse.why());
    }
    epochs_.Watch(clock_.Now());
  }
  BeatLater(std::max(next - clock_.Now(), absl::Milliseconds(1)));
}

void Controller::BeatLater(absl::Duration after) {
  timers_.Schedule(after, [this, mark = std::weak_ptr<bool>(alive_mark_)] {
    if (!mark.expired()) Heartbeat();
  });
}

}  // namespace causeway::controller
