// Workers that come and go: incarnations, epochs, heartbeats.
//
//   (1) attach      a worker fills its free place under a fresh node id and joins the epoch
//   (2) lost        stream reset, or too many heartbeats missed: everything waiting on it fails
//   (3) abort       collectives of the epoch are broken off in the survivors, its unconfirmed
//                   launches fail with the cause
//   (4) open        the survivors enter the next epoch under fresh node ids, buffers and all
#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "causeway/base/check.h"
#include "causeway/base/log.h"
#include "causeway/base/probes.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"

namespace causeway::controller {
namespace {

std::string ClockTime(absl::Time t) {
  return absl::FormatTime("%H:%M:%E3S", t, absl::LocalTimeZone());
}

}  // namespace

Controller::Controller(ControllerOptions options, Membership& membership, Clock& clock,
                       Timers& timers, Random& random)
    : options_(std::move(options)),
      membership_(membership),
      clock_(clock),
      timers_(timers),
      random_(random),
      push_token_(random.Token()),
      topology_(options_.shape),
      alive_mark_(std::make_shared<bool>(true)) {
  workers_.resize(topology_.num_workers());
  for (size_t w = 0; w < workers_.size(); ++w) {
    workers_[w].id = WorkerId(static_cast<int32_t>(w));
    workers_[w].changed = clock_.WallNow();
  }
  epoch_first_seq_ = next_seq_;
  timers_.Schedule(options_.heartbeat, [this, mark = std::weak_ptr<bool>(alive_mark_)] {
    if (!mark.expired()) Heartbeat();
  });
}

Controller::~Controller() {
  Shutdown("the head ends");
  Locked lock(this);
  alive_mark_.reset();
  // The tables' references go under the lock; nobody is left to tell.
  sessions_.clear();
  requests_.clear();
  for (WorkerState& worker : workers_) worker.unconfirmed.clear();
  spares_.clear();
  graveyard_.clear();
  deferred_.clear();
}

void Controller::Shutdown(const std::string& reason) {
  Locked lock(this);
  if (shut_down_) return;
  shut_down_ = true;
  events_.Close();
  for (WorkerState& worker : workers_) {
    if (worker.alive) worker.link->Send(wire::EncodeShutdown(reason));
  }
  for (const Spare& spare : spares_) spare.link->Send(wire::EncodeShutdown(reason));
}

WorkerState& Controller::State(WorkerId worker) {
  CHECK(worker.value() >= 0 && worker.value() < static_cast<int32_t>(workers_.size()));
  return workers_[worker.value()];
}

wire::NodeMap Controller::Nodes() const {
  wire::NodeMap map;
  for (const WorkerState& worker : workers_) {
    map.nodes.push_back(worker.alive ? worker.node : 0);
    map.data_addresses.push_back(worker.alive ? worker.hello.data_address : "");
    map.memories.push_back(worker.alive ? worker.hello.memory : "");
  }
  return map;
}

bool Controller::Complete() const {
  absl::MutexLock lock(&mu_);
  return std::all_of(workers_.begin(), workers_.end(),
                     [](const WorkerState& w) { return w.alive && w.epoch_open; });
}

bool Controller::AwaitComplete(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  auto complete = [this] {
    mu_.AssertHeld();
    return std::all_of(workers_.begin(), workers_.end(),
                       [](const WorkerState& w) { return w.alive && w.epoch_open; });
  };
  return mu_.AwaitWithTimeout(absl::Condition(&complete), timeout);
}

absl::StatusOr<core::WorkerAdmission> Controller::OnAttached(
    const core::WorkerHello& hello, std::shared_ptr<core::WorkerLink> link) {
  Locked lock(this);
  if (shut_down_) return absl::FailedPreconditionError("this head is shutting down");
  if (hello.num_devices != options_.shape.devices_per_host) {
    return absl::FailedPreconditionError(
        absl::StrCat("this cluster has ", options_.shape.devices_per_host,
                     " devices a host, this worker ", hello.num_devices,
                     "; start it with --devices ", options_.shape.devices_per_host));
  }
  const core::WorkerAdmission admission{Incarnation(next_incarnation_++), random_.Token()};
  if (hello.spare) {
    RETURN_IF_ERROR(TakeSpare({hello, std::move(link), admission}));
    return admission;
  }
  if (hello.worker.value() < 0 ||
      hello.worker.value() >= static_cast<int32_t>(workers_.size())) {
    return absl::FailedPreconditionError(
        absl::StrCat("this cluster has workers 0 to ", workers_.size() - 1, ", not ",
                     hello.worker.value(), "; start the worker with another --worker"));
  }
  WorkerState& worker = State(hello.worker);
  if (worker.alive) {
    REACHED("controller.place_taken");
    return absl::FailedPreconditionError(
        absl::StrCat("the place of worker ", hello.worker.value(), " is taken by pid ",
                     worker.hello.pid, " on ", worker.hello.host, "; end that process first"));
  }
  RETURN_IF_ERROR(Join(worker, hello, std::move(link), admission));
  return admission;
}

absl::Status Controller::Join(WorkerState& worker, const core::WorkerHello& hello,
                              std::shared_ptr<core::WorkerLink> link,
                              const core::WorkerAdmission& admission) {
  if (hello.pid != worker.hello.pid || hello.host != worker.hello.host) {
    membership_.NewProcess(worker.id);
  }
  const absl::StatusOr<int> node = membership_.NewNode(worker.id);
  if (!node.ok()) return absl::FailedPreconditionError(node.status().message());
  ++version_;
  worker.alive = true;
  worker.incarnation = admission.incarnation;
  worker.link = std::move(link);
  worker.hello = hello;
  worker.node = *node;
  worker.joined_version = version_;
  worker.epoch_open = false;
  worker.changed = clock_.WallNow();
  worker.pings_sent = worker.pongs_seen = 0;
  worker.progress = {};
  if (!hello.device_kind.empty()) topology_.SetDeviceKind(worker.id, hello.device_kind);
  LOG(INFO) << "worker " << worker.id << " joined as incarnation " << worker.incarnation
            << ", node " << *node << " (pid " << hello.pid << " on " << hello.host << ", "
            << hello.runtime_version << ")";
  wire::Welcome welcome;
  welcome.worker = worker.id;
  welcome.incarnation = worker.incarnation;
  welcome.devices_per_host = options_.shape.devices_per_host;
  welcome.num_workers = topology_.num_workers();
  welcome.coordinator = options_.coordinator;
  welcome.num_nodes = membership_.num_nodes();
  welcome.platform = options_.shape.platform;
  welcome.max_inflight_launches = options_.max_inflight_launches;
  welcome.heartbeat_ms = absl::ToInt64Milliseconds(options_.heartbeat);
  welcome.token = admission.token;
  welcome.push_token = push_token_;
  welcome.callbacks = options_.callbacks;
  welcome.checksums = options_.transfer_checksums;
  welcome.sentinel = options_.sentinel;
  worker.link->Send(wire::EncodeWelcome(welcome));
  worker.link->Send(
      wire::OpenEpochEncoder(epoch_, Nodes(), absl::ToInt64Milliseconds(options_.drain_max))
          .For(*node));
  const wire::Encoded nodes = wire::EncodeSetNodes(epoch_, Nodes());
  for (WorkerState& other : workers_) {
    if (other.alive && other.id != worker.id) other.link->Send(nodes);
  }
  return absl::OkStatus();
}

void Controller::OnDetached(WorkerId id, Incarnation incarnation, const std::string& why) {
  Locked lock(this);
  WorkerState* const worker = Living(id, incarnation);
  if (worker != nullptr) {
    WorkerLost(*worker, shut_down_ ? "the head ends" : why);
  } else {
    SpareGone(incarnation, why);
  }
}

WorkerState* Controller::Living(WorkerId id, Incarnation incarnation) {
  auto taken = spare_places_.find(incarnation);
  if (taken != spare_places_.end()) id = taken->second;
  if (id.value() < 0 || id.value() >= static_cast<int32_t>(workers_.size())) return nullptr;
  WorkerState& worker = State(id);
  return worker.alive && worker.incarnation == incarnation ? &worker : nullptr;
}

void Controller::WorkerLost(WorkerState& worker, const std::string& why) {
  const Incarnation lost = worker.incarnation;
  worker.alive = false;
  worker.epoch_open = false;
  worker.changed = clock_.WallNow();
  worker.lost_why = absl::StrCat(why, " at ", ClockTime(worker.changed));
  worker.arrays_lost = CountArraysOn(worker.id);
  ++version_;
  ++counters_.workers_lost;
  worker.link.reset();
  worker.programs.clear();
  worker.bindings.clear();
  worker.stats.clear();
  const absl::Status error = LostError(worker.id);
  LOG(WARNING) << error.message();
  if (!shut_down_) {
    lost_slices_.insert(topology_.SliceOf(worker.id));
    events_.Append({.kind = "lost",
                    .slice = topology_.SliceOf(worker.id),
                    .worker = worker.id,
                    .epoch = epoch_,
                    .cause = std::string(error.message()),
                    .time = worker.changed});
  }
  auto requests = std::move(worker.requests);
  worker.requests.clear();
  if (!shut_down_) ChangeEpoch(error);
  for (const auto& [request, replies] : requests) {
    for (int i = 0; i < replies; ++i) Replied(request, error);
  }
  // Bytes that were on their way from it will not come.
  const wire::Encoded fail = wire::EncodeFailTransfers(worker.id, error);
  for (WorkerState& other : workers_) {
    if (other.alive) other.link->Send(fail);
  }
  spare_places_.erase(lost);
  if (!shut_down_) FillFromSpares(worker);
}

void Controller::ChangeEpoch(const absl::Status& cause) {
  std::vector<core::GateRef> gates;
  for (WorkerState& worker : workers_) {
    for (auto& [seq, gate] : worker.unconfirmed) gates.push_back(std::move(gate));
    worker.unconfirmed.clear();
  }
  for (const core::GateRef& gate : gates) {
    if (!PLANTED("controller.abort_keeps_gates")) gate->Fail(cause);
  }
  meetings_.clear();
  const EpochId old = epoch_;
  ++counters_.epoch_changes;
  // An epoch without launches has no collectives to poison: newcomers just join it.
  if (epoch_first_seq_ == next_seq_) {
    REACHED("controller.epoch_without_launches");
    const wire::Encoded nodes = wire::EncodeSetNodes(epoch_, Nodes());
    for (WorkerState& worker : workers_) {
      if (worker.alive) worker.link->Send(nodes);
    }
    return;
  }
  epoch_ = EpochId(old.value() + 1);
  epoch_first_seq_ = next_seq_;
  LOG(INFO) << "epoch " << epoch_ << " begins: " << cause.message();
  recovery_ = {.epoch = epoch_, .cause = std::string(cause.message()), .begun = clock_.WallNow()};
  recovery_begun_ = clock_.Now();
  const wire::Encoded abort = wire::EncodeAbortEpoch(old, cause);
  for (WorkerState& worker : workers_) {
    if (worker.alive) worker.link->Send(abort);
  }
  membership_.EpochChanged(epoch_, cause);
  for (WorkerState& worker : workers_) {
    if (!worker.alive) continue;
    absl::StatusOr<int> node = membership_.NewNode(worker.id);
    if (!node.ok()) {
      LOG(ERROR) << "worker " << worker.id << " cannot enter the epoch: " << node.status();
      worker.link->Close(node.status().message());
      worker.node = 0;
      continue;
    }
    worker.node = *node;
    worker.epoch_open = false;
  }
  const wire::OpenEpochEncoder open(epoch_, Nodes(),
                                    absl::ToInt64Milliseconds(options_.drain_max));
  for (WorkerState& worker : workers_) {
    if (worker.alive && worker.node != 0) worker.link->Send(open.For(worker.node));
  }
}

void Controller::OnEvent(WorkerId id, Incarnation incarnation, absl::string_view bytes) {
  absl::StatusOr<wire::Event> event = wire::DecodeEvent(bytes);
  Locked lock(this);
  WorkerState* const worker = Living(id, incarnation);
  if (worker == nullptr) {
    REACHED("controller.event_of_a_lost_life");
    if (event.ok()) SpareEvent(incarnation, *event);
    return;
  }
  if (!event.ok()) {
    LOG(ERROR) << "worker " << worker->id << ": " << event.status().message();
    worker->link->Close(event.status().message());
    return;
  }
  Handle(*worker, *std::move(event));
}

void Controller::Handle(WorkerState& worker, wire::Event event) {
  if (auto* reply = std::get_if<wire::ReplyEvent>(&event)) {
    auto due = worker.requests.find(reply->request);
    if (due == worker.requests.end()) return;
    if (--due->second == 0) worker.requests.erase(due);
    auto it = requests_.find(reply->request);
    if (it == requests_.end()) return;
    if (reply->compile.has_value()) {
      it->second.compile = std::move(reply->compile);
      it->second.compile_bytes = std::move(reply->compile_bytes);
    }
    if (!reply->text.empty()) it->second.text = std::move(reply->text);
    if (!reply->numbers.empty()) it->second.numbers = std::move(reply->numbers);
    Replied(reply->request, reply->status);
  } else if (auto* data = std::get_if<wire::FetchDataEvent>(&event)) {
    auto it = requests_.find(data->request);
    if (it != requests_.end()) it->second.data[data->device].Append(std::move(data->bytes));
  } else if (auto* launched = std::get_if<wire::LaunchDoneEvent>(&event)) {
    if (launched->epoch != epoch_) return;
    while (!worker.unconfirmed.empty() && worker.unconfirmed.front().first <= launched->seq) {
      const core::GateRef gate = std::move(worker.unconfirmed.front().second);
      worker.unconfirmed.pop_front();
      gate->Release();
      if (gate->open() && recovery_.epoch == epoch_ && recovery_.launched == absl::Duration()) {
        recovery_.launched = clock_.Now() - recovery_begun_;
      }
    }
  } else if (auto* failed = std::get_if<wire::LaunchFailedEvent>(&event)) {
    if (failed->epoch != epoch_) {
      REACHED("controller.failure_of_an_older_epoch");
      return;
    }
    const absl::Status cause(
        failed->status.code(),
        absl::StrCat("a launch over several workers failed on worker ", worker.id.value(), ": ",
                     failed->status.message()));
    if (!failed->peer_failure) {
      ChangeEpoch(cause);
      return;
    }
    // Somebody else is the cause; give its own report a moment to arrive.
    const EpochId epoch = epoch_;
    timers_.Schedule(options_.peer_failure_grace,
                     [this, mark = std::weak_ptr<bool>(alive_mark_), epoch,
                      message = std::string(cause.message())] {
                       if (mark.expired()) return;
                       Locked lock(this);
                       if (epoch_ != epoch) return;
                       REACHED("controller.peer_failure_without_a_cause");
                       ChangeEpoch(absl::DataLossError(message));
                     });
  } else if (auto* arrived = std::get_if<wire::AtRendezvousEvent>(&event)) {
    if (arrived->epoch == epoch_) MemberArrived(worker.id, arrived->seq);
  } else if (auto* opened = std::get_if<wire::EpochOpenedEvent>(&event)) {
    if (!opened->status.ok()) {
      REACHED("controller.epoch_not_opened");
      const std::string why = absl::StrCat("it could not enter epoch ", opened->epoch.value(), ": ",
                                           opened->status.message());
      worker.link->Close(why);
      WorkerLost(worker, why);
      return;
    }
    if (opened->epoch != epoch_) return;
    worker.epoch_open = true;
    NoteEpochOpened(*opened);
    NoteWholeSlice(worker.id);
    LOG(INFO) << "worker " << worker.id << " is in epoch " << epoch_ << " (drained in "
              << opened->drain_us << " us, client in " << opened->client_us << " us, adopted "
              << opened->adopted_buffers << " buffers in " << opened->adopt_us << " us)";
  } else if (auto* pong = std::get_if<wire::PongEvent>(&event)) {
    worker.pongs_seen = std::max(worker.pongs_seen, std::min(pong->number, worker.pings_sent));
    worker.last_heard = clock_.WallNow();
    worker.stats = std::move(pong->stats);
    worker.progress = std::move(pong->progress);
    worker.transfers = std::move(pong->transfers);
    worker.transfer_fallback = std::move(pong->transfer_fallback);
  } else if (auto* lost = std::get_if<wire::TransferFailedEvent>(&event)) {
    ++counters_.transfers_failed;
    if (lost->to.value() < 0 || lost->to.value() >= static_cast<int32_t>(workers_.size())) return;
    WorkerState& to = State(lost->to);
    if (!to.alive) return;
    const bool no_memory = absl::IsResourceExhausted(lost->status);
    to.link->Send(wire::EncodeFailTransfer(
        lost->transfer,
        absl::Status(
            no_memory ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kDataLoss,
            absl::StrCat(
            "bytes from worker ", worker.id.value(), " (pid ", worker.hello.pid, " on ",
            worker.hello.host, ") did not get through to worker ", to.id.value(), ": ",
            lost->status.message(), "; make the array again"))));
  }
}

void Controller::NoteEpochOpened(const wire::EpochOpenedEvent& opened) {
  if (recovery_.epoch != opened.epoch || recovery_.opened != absl::Duration()) return;
  auto slowest = [](absl::Duration& of_all, uint64_t microseconds) {
    of_all = std::max(of_all, absl::Microseconds(static_cast<int64_t>(microseconds)));
  };
  slowest(recovery_.drain, opened.drain_us);
  slowest(recovery_.client, opened.client_us);
  slowest(recovery_.adopt, opened.adopt_us);
  for (const WorkerState& worker : workers_) {
    if (worker.alive && !worker.epoch_open) return;
  }
  recovery_.opened = clock_.Now() - recovery_begun_;
}

void Controller::NoteWholeSlice(WorkerId id) {
  const int slice = topology_.SliceOf(id);
  if (!lost_slices_.contains(slice)) return;
  for (const WorkerState& worker : workers_) {
    if (topology_.SliceOf(worker.id) == slice && !(worker.alive && worker.epoch_open)) return;
  }
  lost_slices_.erase(slice);
  events_.Append({.kind = "back",
                  .slice = slice,
                  .worker = id,
                  .epoch = epoch_,
                  .cause = absl::StrCat("worker ", id.value(), " (pid ", State(id).hello.pid,
                                        " on ", State(id).hello.host, ") is in epoch ",
                                        epoch_.value()),
                  .time = clock_.WallNow()});
}

void Controller::MemberArrived(WorkerId id, LaunchSeq seq) {
  auto takes_part = [seq](const WorkerState& worker) {
    const auto& launches = worker.unconfirmed;
    const auto at = std::lower_bound(
        launches.begin(), launches.end(), seq,
        [](const std::pair<LaunchSeq, core::GateRef>& l, LaunchSeq s) { return l.first < s; });
    return at != launches.end() && at->first == seq;
  };
  if (!takes_part(State(id))) return;
  Meeting& meeting = meetings_[seq];
  if (meeting.here.empty()) {
    meeting.members =
        static_cast<size_t>(std::count_if(workers_.begin(), workers_.end(), takes_part));
  }
  std::vector<WorkerId>& here = meeting.here;
  if (std::find(here.begin(), here.end(), id) != here.end()) return;
  here.push_back(id);
  if (here.size() < meeting.members) return;
  const wire::Encoded proceed = wire::EncodeProceed(epoch_, seq);
  for (const WorkerId member : here) State(member).link->Send(proceed);
  meetings_.erase(seq);
}

void Controller::Heartbeat() {
  {
    Locked lock(this);
    if (shut_down_) return;
    for (WorkerState& worker : workers_) {
      if (!worker.alive) continue;
      if (worker.pings_sent >= worker.pongs_seen + options_.missed_beats_max) {
        const std::string why = absl::StrCat(
            "it answered none of ", options_.missed_beats_max, " heartbeats within ",
            absl::FormatDuration(options_.heartbeat * options_.missed_beats_max));
        REACHED("controller.heartbeats_missed");
        worker.link->Close(why);
        WorkerLost(worker, why);
        continue;
      }
      worker.link->Send(wire::EncodePing(++worker.pings_sent));
    }
    WatchLaunches();
    PingSpares();
  }
  timers_.Schedule(options_.heartbeat, [this, mark = std::weak_ptr<bool>(alive_mark_)] {
    if (!mark.expired()) Heartbeat();
  });
}

}  // namespace causeway::controller
