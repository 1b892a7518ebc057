// Launches: order, room, arguments, failure.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "causeway/base/check.h"
#include "causeway/base/log.h"
#include "causeway/base/probes.h"
#include "causeway/base/status_macros.h"
#include "causeway/worker/op_graph.h"

namespace causeway::worker {

void OpGraph::Run(Launch launch) {
  const auto it = bindings_.find(launch.binding);
  if (it != bindings_.end() && it->second->host != nullptr) {
    RunHost(std::move(launch), it->second->host);
    return;
  }
  auto pending = std::make_shared<PendingLaunch>();
  if (it != bindings_.end()) {
    pending->binding = it->second;
  } else {
    pending->binding = std::make_shared<Binding>();  // fails at issue, in order
    pending->binding->bind.binding = launch.binding;
  }
  pending->args.reserve(launch.args.size());
  for (const BufferId id : launch.args) pending->args.push_back(Find(id));
  pending->outputs.reserve(launch.outputs.size());
  for (const BufferId id : launch.outputs) pending->outputs.push_back(NewOutput(id));
  pending->launch = std::move(launch);
  if (pending->launch.seq == LaunchSeq(0)) {
    Enqueue(std::move(pending));
    Pump();
    return;
  }
  if (multi_count_ == options_.faults.period) multi_count_ = 0;
  ++multi_count_;
  ApplyFaults(*pending);
  if (options_.faults.swap_launch > 0 && multi_count_ == options_.faults.swap_launch) {
    swapped_ = std::move(pending);
    return;
  }
  Enqueue(std::move(pending));
  if (swapped_ != nullptr) Enqueue(std::exchange(swapped_, nullptr));
  Pump();
}

void OpGraph::ApplyFaults(PendingLaunch& launch) {
  if (multi_count_ == options_.faults.skip_launch) launch.fault = PendingLaunch::Fault::kSkip;
  if (multi_count_ == options_.faults.oom_launch) {
    launch.fault = PendingLaunch::Fault::kOutOfMemory;
  }
}

void OpGraph::Enqueue(PendingLaunchRef launch) {
  const bool multi = launch->launch.seq != LaunchSeq(0);
  if (multi) {
    // Told at once, before anything waits for room: the peers may be in the wrong launch already.
    const auto place = std::make_pair(launch->launch.epoch, launch->launch.seq);
    if (place <= last_queued_) {
      const absl::Status cause = absl::InternalError(
          absl::StrCat("launch ", place.second.value(), " came after launch ",
                       last_queued_.second.value(), " on worker ", options_.worker,
                       "; the head has to send launches in growing order"));
      ledger_->Refuse(place.first, place.second, cause);
      FailOutputs(*launch, cause);
      return;
    }
    last_queued_ = place;
  }
  OperationRef operation = MakeOperation(launch->args, /*exclusive=*/true);
  if (multi) {
    std::erase_if(parked_sends_, [](const OperationRef& send) { return send->done; });
    for (const OperationRef& send : parked_sends_) Precede(send, operation);
  }
  const bool may_issue =
      operation->blockers == 0 && HasRoom(*launch) && MetBefore(*launch) &&
      (multi ? multi_queue_.empty() : local_ready_.empty()) && runnable_.empty();
  if (may_issue) {
    Issue(*launch);
    return;
  }
  launch->operation = operation;
  // It waits for all earlier readers, so whoever waits for it need not.
  for (const ValueRef& value : launch->args) value->readers.assign(1, operation);
  if (multi) {
    // Unblocking needs no action of its own: Pump looks at the head of the queue.
    multi_queue_.push_back(std::move(launch));
    return;
  }
  if (operation->blockers == 0) {
    local_ready_.push_back(std::move(launch));
    return;
  }
  operation->run = [this, launch] { local_ready_.push_back(launch); };
}

bool OpGraph::HasRoom(const PendingLaunch& launch) const {
  if (launch.launch.seq != LaunchSeq(0) && inflight_multi_ > 0) {
    if (inflight_multi_ >= options_.max_inflight_multi) return false;
    if (FAULT_POINT("graph.no_room")) return false;
    const bool depends =
        std::any_of(launch.args.begin(), launch.args.end(),
                    [this](const ValueRef& value) { return value->after == last_multi_; });
    if (!depends) return false;
  }
  const std::vector<int>& ordinals = launch.binding->ordinals;
  return std::all_of(ordinals.begin(), ordinals.end(),
                     [this](int k) { return inflight_[k] < options_.max_inflight_device; });
}

bool OpGraph::MetBefore(const PendingLaunch& launch) const {
  return !options_.rendezvous || launch.launch.seq == LaunchSeq(0) ||
         launch.binding->met_in == launch.launch.epoch;
}

bool OpGraph::Meets(PendingLaunch& launch) {
  if (MetBefore(launch)) return true;
  if (launch.announced) return false;
  // What will not run here needs no peers; they hear of it as of any failed launch.
  for (const ValueRef& value : launch.args) {
    if (!value->error.ok()) return true;
  }
  if (!ledger_->Verdict(launch.launch.epoch).ok() || !EnsureLoaded(*launch.binding).ok()) {
    return true;
  }
  // "Could start" means that nothing of this worker's own stands before it on the devices.
  const std::vector<int>& ordinals = launch.binding->ordinals;
  if (inflight_multi_ > 0 || std::any_of(ordinals.begin(), ordinals.end(),
                                         [this](int k) { return inflight_[k] > 0; })) {
    return false;
  }
  launch.announced = true;
  host_->Emit(AtRendezvous{launch.launch.epoch, launch.launch.seq});
  return false;
}

void OpGraph::Run(const Proceed& proceed) {
  if (multi_queue_.empty()) return;
  PendingLaunch& front = *multi_queue_.front();
  if (front.launch.epoch != proceed.epoch || front.launch.seq != proceed.seq) return;
  front.binding->met_in = proceed.epoch;
  Pump();
}

OpGraph::Waiting OpGraph::waiting_launch() const {
  const auto it = std::find_if(multi_queue_.begin(), multi_queue_.end(),
                               [](const PendingLaunchRef& launch) { return !launch->dropped; });
  if (it == multi_queue_.end()) return {};
  const PendingLaunch& launch = **it;
  Waiting waiting{launch.launch.seq, "", launch.announced};
  if (waiting.could_start) waiting.what = "its peers have not come to it";
  for (size_t i = 0; i < launch.args.size() && waiting.what.empty(); ++i) {
    const Value& value = *launch.args[i];
    if (!value.pending()) continue;
    waiting.what =
        absl::StrCat("argument ", i, " (buffer ", launch.launch.args[i].value(), ") is not there");
    for (const TransferId id : value.awaits) {
      // A transfer that has come is not in the table any more.
      if (!transfers_.contains(id)) continue;
      const uint64_t sender = id.value() >> 48;
      absl::StrAppend(&waiting.what, "; transfer ", id.value(), " from ",
                      sender == 0 ? "the head" : absl::StrCat("worker ", sender - 1),
                      " has not come");
    }
  }
  if (waiting.what.empty()) {
    waiting.what = launch.operation != nullptr && launch.operation->blockers > 0
                       ? "an earlier reader of its arguments has not ended"
                       : absl::StrCat(inflight_multi_, " launches before it have not ended");
  }
  return waiting;
}

std::string OpGraph::DescribeLaunches(absl::Span<const LaunchSeq> launches) const {
  std::vector<std::string> words;
  for (const std::shared_ptr<LaunchRecord>& record : issued_) {
    if (std::find(launches.begin(), launches.end(), record->seq) == launches.end()) continue;
    const std::string& name = record->program->name;
    words.push_back(absl::StrCat("launch ", record->seq.value(), " of ",
                                 name.empty() ? "a program" : name,
                                 ", in the device's hands for ",
                                 absl::FormatDuration(absl::Trunc(host_->Now() - record->issued,
                                                                  absl::Milliseconds(1)))));
  }
  return absl::StrJoin(words, "; ");
}

absl::Status OpGraph::EnsureLoaded(Binding& binding) {
  if (binding.loaded != nullptr && binding.loaded_in == epoch_) return absl::OkStatus();
  if (binding.source == nullptr) {
    binding.source = FindProgram(binding.bind.program);
  }
  if (binding.source == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("binding ", binding.bind.binding.value(), " has no program on worker ",
                     options_.worker, "; the head has to send LoadProgram and Bind first"));
  }
  for (const int32_t device : binding.bind.devices) {
    if (device >= 0) continue;
    return absl::InvalidArgumentError(absl::StrCat("binding ", binding.bind.binding.value(),
                                                   " names device ", device,
                                                   "; devices are numbered from 0"));
  }
  ASSIGN_OR_RETURN(binding.loaded,
                   device_->Load({.source = binding.source,
                                  .devices = binding.bind.devices,
                                  .nodes = nodes_,
                                  .output_memory_kinds = binding.bind.output_memory_kinds,
                                  .output_dtypes = binding.bind.output_dtypes,
                                  .host_callbacks = binding.bind.host_callbacks}));
  binding.loaded_in = epoch_;
  ++loads_;
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<LaunchRecord>> OpGraph::IssueOnDevice(PendingLaunch& launch) {
  RETURN_IF_ERROR(EnsureLoaded(*launch.binding));
  if (launch.fault == PendingLaunch::Fault::kOutOfMemory) {
    return absl::ResourceExhaustedError("fault injection: out of memory at launch");
  }
  if (launch.fault == PendingLaunch::Fault::kSkip) {
    return absl::InternalError("fault injection: the runtime skipped the launch");
  }
  std::vector<device::ArrayRef> args;
  args.reserve(launch.args.size());
  for (const ValueRef& value : launch.args) {
    ASSIGN_OR_RETURN(device::ArrayRef array, Use(*value));
    args.push_back(std::move(array));
  }
  ASSIGN_OR_RETURN(device::Launched launched,
                   device_->Launch(*launch.binding->loaded, args, launch.launch.protect,
                                   launch.launch.seq.value()));
  if (launched.outputs.size() != launch.outputs.size()) {
    return absl::InternalError(absl::StrCat("the program has ", launched.outputs.size(),
                                            " outputs, the launch names ",
                                            launch.outputs.size()));
  }
  auto record = std::make_shared<LaunchRecord>();
  record->epoch = launch.launch.epoch;
  record->seq = launch.launch.seq;
  record->ordinals = launch.binding->ordinals;
  record->program = launch.binding->source;
  record->issued = host_->Now();
  record->completion = std::move(launched.completion);
  LaunchSeq after = launch.launch.seq;
  for (const ValueRef& value : launch.args) after = std::max(after, value->after);
  record->outputs.reserve(launch.outputs.size());
  for (size_t i = 0; i < launch.outputs.size(); ++i) {
    launch.outputs[i]->after = after;
    record->outputs.push_back(launch.outputs[i]);
    launch.outputs[i]->producer = record;
    if (!launched.held) Resolve(launch.outputs[i], std::move(launched.outputs[i]));
  }
  if (launched.held && !launched.outputs.empty()) {
    REACHED("graph.held_launch");
    record->held = std::move(launched.outputs);
    holding_.push_back(record);
  }
  return record;
}

void OpGraph::Issue(PendingLaunch& launch) {
  const bool multi = launch.launch.seq != LaunchSeq(0);
  absl::Status status;
  for (const ValueRef& value : launch.args) status.Update(value->error);
  bool admitted = false;
  std::shared_ptr<LaunchRecord> ended;
  if (multi) {
    if (!status.ok()) {
      // The reason against the epoch comes before the reason against the argument.
      const absl::Status verdict = ledger_->Verdict(launch.launch.epoch);
      if (verdict.ok()) ledger_->Refuse(launch.launch.epoch, launch.launch.seq, status);
    } else {
      status = ledger_->Admit(launch.launch.epoch, launch.launch.seq);
      admitted = status.ok();
    }
  }
  if (status.ok()) {
    auto issued = IssueOnDevice(launch);
    status = issued.status();
    if (status.ok()) {
      ++launches_;
      for (const int k : (*issued)->ordinals) ++inflight_[k];
      if (multi) {
        ++inflight_multi_;
        last_multi_ = launch.launch.seq;
        issued_.push_back(*issued);
        if (launch.binding->bind.host_callbacks) launch.binding->met_in = EpochId(0);
      }
      if (const RequestId request = launch.launch.request; request != RequestId(0)) {
        (*issued)->waiters.push_back([this, request](const absl::Status& end) {
          host_->Emit(Reply{.request = request, .status = end});
        });
      }
      // Launches of several workers are confirmed in order, so earlier ones must have been.
      if ((*issued)->completion == nullptr && (!multi || inflight_multi_ == 1)) {
        ended = *std::move(issued);
      } else {
        host_->Watch(*std::move(issued));
      }
    } else if (admitted) {
      ledger_->Complete(launch.launch.epoch, launch.launch.seq, status);
    }
  }
  if (!status.ok()) FailOutputs(launch, status);
  if (launch.operation != nullptr) Finish(*launch.operation);
  // Drops this launch's hold on its arguments while the record lives on.
  launch.args.clear();
  if (ended == nullptr) return;
  if (multi) ledger_->Complete(ended->epoch, ended->seq, absl::OkStatus());
  LaunchFinished(ended, absl::OkStatus());
}

void OpGraph::FailOutputs(PendingLaunch& launch, const absl::Status& cause) {
  for (const ValueRef& output : launch.outputs) {
    if (output->pending()) Resolve(output, cause);
  }
  if (launch.launch.request != RequestId(0)) {
    host_->Emit(Reply{.request = launch.launch.request, .status = cause});
  }
}

void OpGraph::LaunchFinished(const std::shared_ptr<LaunchRecord>& record, absl::Status status) {
  CHECK(!record->done);
  record->done = true;
  record->status = status;
  for (const int k : record->ordinals) --inflight_[k];
  if (record->seq != LaunchSeq(0)) {
    --inflight_multi_;
    std::erase(issued_, record);
  }
  if (!record->held.empty()) ReleaseHeld(record, status);
  if (!status.ok()) {
    // The values are garbage or will never be: later commands see the cause, not XLA's echo of it.
    for (const std::weak_ptr<Value>& weak : record->outputs) {
      const ValueRef value = weak.lock();
      if (value == nullptr || value->producer != record) continue;
      value->state = Value::State::kError;
      value->error = status;
      value->array = nullptr;
    }
  }
  for (auto& waiter : std::exchange(record->waiters, {})) waiter(status);
  Pump();
}

void OpGraph::ReleaseHeld(const std::shared_ptr<LaunchRecord>& record,
                          const absl::Status& status) {
  std::erase(holding_, record);
  for (size_t i = 0; i < record->held.size(); ++i) {
    const ValueRef value = record->outputs[i].lock();
    if (value == nullptr || !value->pending()) continue;
    if (status.ok()) {
      Resolve(value, std::move(record->held[i]));
    } else {
      Resolve(value, status);
    }
  }
  record->held.clear();
}

void OpGraph::DropParkedLaunches(EpochId epoch, const absl::Status& cause) {
  for (const PendingLaunchRef& launch : multi_queue_) {
    if (launch->dropped || launch->launch.epoch > epoch) continue;
    REACHED("graph.parked_launch_dropped");
    launch->dropped = true;
    FailOutputs(*launch, cause);
    if (launch->operation != nullptr) Drop(*launch->operation);
  }
  if (swapped_ != nullptr && swapped_->launch.epoch <= epoch) {
    FailOutputs(*std::exchange(swapped_, nullptr), cause);
  }
  Pump();
}

}  // namespace causeway::worker
