// Workers that come and go: their places, their lives, and what is lost with them.
//
//   attach   a worker fills its free place under a fresh node id; core/epochs.h lets it in
//   lost     stream reset, or heartbeats missed: everything that waits for it fails, and what this
//            means for the epoch is decided by core/epochs.h again
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "causeway/base/check.h"
#include "causeway/base/log.h"
#include "causeway/base/limits.h"
#include "causeway/base/probes.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"

namespace causeway::controller {
namespace {

std::string ClockTime(absl::Time t) {
  return absl::FormatTime("%H:%M:%E3S", t, absl::LocalTimeZone());
}

core::EpochOptions RulesOf(const ControllerOptions& options, const model::Topology& topology) {
  core::EpochOptions rules;
  for (int w = 0; w < topology.num_workers(); ++w) {
    rules.slices.push_back(topology.SliceOf(WorkerId(w)));
  }
  rules.peer_failure_grace = options.peer_failure_grace;
  rules.launch_start_max = options.launch_start_max;
  rules.open_max = options.drain_max + options.open_max;
  return rules;
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
      epochs_(RulesOf(options_, topology_), this),
      alive_mark_(std::make_shared<bool>(true)) {
  workers_.resize(topology_.num_workers());
  for (size_t w = 0; w < workers_.size(); ++w) {
    workers_[w].id = WorkerId(static_cast<int32_t>(w));
    workers_[w].changed = clock_.WallNow();
  }
  BeatLater(options_.heartbeat);
}

Controller::~Controller() {
  Shutdown("the head ends");
  Locked lock(this);
  alive_mark_.reset();
  // The tables' references go under the lock; nobody is left to tell.
  sessions_.clear();
  requests_.clear();
  gates_.clear();
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
    map.nodes.push_back(epochs_.node(worker.id));
    map.data_addresses.push_back(worker.alive ? worker.hello.data_address : "");
    map.memories.push_back(worker.alive ? worker.hello.memory : "");
  }
  return map;
}

bool Controller::Complete() const {
  absl::MutexLock lock(&mu_);
  return epochs_.complete();
}

bool Controller::AwaitComplete(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  auto complete = [this] {
    mu_.AssertHeld();
    return epochs_.complete();
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
  worker.joined_version = version_;
  worker.changed = clock_.WallNow();
  worker.pulse = core::Pulse(options_.heartbeat, options_.missed_beats_max, clock_.Now());
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
  epochs_.Join(worker.id, worker.incarnation, *node, clock_.Now());
  return absl::OkStatus();
}

void Controller::OnDetached(WorkerId, Incarnation incarnation, const std::string& why) {
  Locked lock(this);
  WorkerState* const worker = Living(incarnation);
  if (worker != nullptr) {
    WorkerLost(*worker, shut_down_ ? "the head ends" : why);
  } else {
    SpareGone(incarnation, why);
  }
}

WorkerState* Controller::Living(Incarnation incarnation) {
  const std::optional<WorkerId> place = epochs_.PlaceOf(incarnation);
  if (!place.has_value() || !State(*place).alive) return nullptr;
  return &State(*place);
}

void Controller::WorkerLost(WorkerState& worker, const std::string& why) {
  const absl::Status error = NoteLoss(worker, why);
  auto requests = std::move(worker.requests);
  worker.requests.clear();
  if (!shut_down_) epochs_.Lost(worker.id, error, clock_.Now());
  // Bytes that were on their way from it will not come.
  const wire::Encoded fail = wire::EncodeFailTransfers(worker.id, error);
  for (WorkerState& other : workers_) {
    if (other.alive) other.link->Send(fail);
  }
  if (!shut_down_) FillFromSpares(worker);
  // Last, so that what is tried again finds the spare.
  for (const auto& [request, replies] : requests) {
    for (int i = 0; i < replies; ++i) Replied(request, error);
  }
}

absl::Status Controller::NoteLoss(WorkerState& worker, const std::string& why) {
  const int64_t arrays = CountArraysOn(worker.id);
  worker.alive = false;
  worker.changed = clock_.WallNow();
  worker.lost_why = absl::StrCat(why, " at ", ClockTime(worker.changed));
  ++version_;
  ++counters_.workers_lost;
  worker.link.reset();
  worker.programs.clear();
  worker.bindings.clear();
  worker.stats.clear();
  absl::Status error = absl::DataLossError(absl::StrCat(
      "slice ", topology_.SliceOf(worker.id), " lost: worker ", worker.id.value(), " (pid ",
      worker.hello.pid, " on ", worker.hello.host, "): ", worker.lost_why,
      arrays == 0 ? std::string() : absl::StrCat("; ", arrays, " arrays affected"),
      "; what it held is gone: restore it from a snapshot or from replicas"));
  LOG(WARNING) << error.message();
  worker.losses.push_back({version_, error});
  if (worker.losses.size() > limits::kLossesKept) worker.losses.pop_front();
  return error;
}

}  // namespace causeway::controller
