// Performs what core/epochs.h asks for: commands to workers, gates, timers, events.
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/check.h"
#include "causeway/base/log.h"
#include "causeway/base/probes.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"

namespace causeway::controller {

absl::StatusOr<int> Controller::NewNode(WorkerId member) {
  mu_.AssertHeld();
  return membership_.NewNode(member);
}

void Controller::Confirmed(LaunchSeq seq) {
  mu_.AssertHeld();
  CHECK(seq.value() >= first_gate_ && seq.value() - first_gate_ < gates_.size()) << seq;
  // Later gates may open with this one; what waits for them comes back here no more.
  if (const core::GateRef gate = std::move(gates_[seq.value() - first_gate_])) gate->Release();
  for (; !gates_.empty() && gates_.front() == nullptr; ++first_gate_) gates_.pop_front();
}

void Controller::FailLaunches(const absl::Status& cause) {
  mu_.AssertHeld();
  const std::deque<core::GateRef> gates = std::exchange(gates_, {});
  first_gate_ += gates.size();
  for (const core::GateRef& gate : gates) {
    if (gate != nullptr && !PLANTED("controller.abort_keeps_gates")) gate->Fail(cause);
  }
  ++counters_.epoch_changes;
}

void Controller::Abort(EpochId epoch, EpochId next, absl::Span<const WorkerId> members,
                       const absl::Status& cause) {
  mu_.AssertHeld();
  LOG(INFO) << "epoch " << next << " begins: " << cause.message();
  recovery_begun_ = clock_.WallNow();
  const wire::Encoded abort = wire::EncodeAbortEpoch(epoch, cause);
  for (WorkerId member : members) State(member).link->Send(abort);
  membership_.EpochChanged(next, cause);
}

void Controller::Open(EpochId epoch, absl::Span<const WorkerId> members) {
  mu_.AssertHeld();
  const wire::Encoded open =
      wire::EncodeOpenEpoch(epoch, Nodes(), absl::ToInt64Milliseconds(options_.drain_max));
  for (WorkerId member : members) {
    State(member).link->Send(open);
    State(member).nodes_are_old = false;
  }
}

// Where many join one after the other, telling everyone of each would take the cube of their number
// in bytes, and heartbeats would wait behind them.
void Controller::SetNodes(EpochId epoch, absl::Span<const WorkerId> members, bool left) {
  mu_.AssertHeld();
  nodes_ = nullptr;
  for (WorkerId member : members) {
    State(member).nodes_are_old = true;
    if (left) TellNodes(State(member));
  }
}

void Controller::TellNodes(WorkerState& worker) {
  if (!std::exchange(worker.nodes_are_old, false)) return;
  if (nodes_ == nullptr) nodes_ = wire::EncodeSetNodes(epochs_.epoch(), Nodes());
  worker.link->Send(nodes_);
}

void Controller::Proceed(EpochId epoch, LaunchSeq seq, absl::Span<const WorkerId> members) {
  mu_.AssertHeld();
  const wire::Encoded proceed = wire::EncodeProceed(epoch, seq);
  for (WorkerId member : members) State(member).link->Send(proceed);
}

void Controller::SliceLost(int slice, WorkerId member, const absl::Status& cause) {
  mu_.AssertHeld();
  events_.Append({.kind = "lost",
                  .slice = slice,
                  .worker = member,
                  .epoch = epochs_.epoch(),
                  .cause = std::string(cause.message()),
                  .time = State(member).changed});
}

void Controller::SliceBack(int slice, WorkerId member) {
  mu_.AssertHeld();
  const WorkerState& worker = State(member);
  const uint64_t epoch = epochs_.epoch().value();
  events_.Append({.kind = "back",
                  .slice = slice,
                  .worker = member,
                  .epoch = epochs_.epoch(),
                  .cause = absl::StrCat("worker ", member.value(), " (pid ", worker.hello.pid,
                                        " on ", worker.hello.host, ") is in epoch ", epoch),
                  .time = clock_.WallNow()});
}

void Controller::SetTimer(core::EpochTimer timer, absl::Duration after) {
  mu_.AssertHeld();
  timers_.Schedule(after, [this, mark = std::weak_ptr<bool>(alive_mark_),
                           timer = std::move(timer)] {
    if (mark.expired()) return;
    Locked lock(this);
    if (!shut_down_) epochs_.Fired(timer, clock_.Now());
  });
}

void Controller::GiveUp(WorkerId member, const std::string& why) {
  mu_.AssertHeld();
  WorkerState& worker = State(member);
  worker.link->Close(why);
  WorkerLost(worker, why);
}

}  // namespace causeway::controller
