// Processes, faults, and the marks of one simulation.
#include "causeway/sim/world.h"

#include <algorithm>
#include <iostream>
#include <utility>

#include "causeway/sim/process.h"

namespace causeway::sim {
namespace {

controller::ControllerOptions HeadOptions(const Plan& plan) {
  controller::ControllerOptions options;
  options.shape = plan.shape;
  options.coordinator = "sim:0";
  options.max_inflight_launches = plan.max_inflight_launches;
  options.heartbeat = plan.heartbeat;
  options.drain_max = plan.drain_max;
  options.launch_start_max = absl::Seconds(60);  // longer than any partition lasts
  options.max_programs = plan.max_programs;
  options.inline_bytes_max = plan.inline_bytes_max;
  return options;
}

coordination::TopologyOptions Nodes(const Plan& plan) {
  coordination::TopologyOptions options;
  options.shape = plan.shape;
  return options;
}

}  // namespace

World::World(const Plan& plan, bool trace_on, std::set<std::string> planted_bugs)
    : plan(plan),
      trace(trace_on),
      random(plan.seed * 3 + 1),
      head_random(plan.seed * 3 + 2),
      planted(std::move(planted_bugs)),
      nodes_(Nodes(plan)),
      fault_random_(plan.seed * 3 + 3) {
  const size_t workers = static_cast<size_t>(plan.shape.num_workers());
  losses.resize(workers);
  down.assign(workers, true);
  troubles.resize(workers);
  trouble_due.resize(workers);
  transfers_to_lose.resize(workers);
  partition_.assign(workers, absl::InfinitePast());
  peer_partition_.assign(workers, absl::InfinitePast());
  controller = std::make_unique<controller::Controller>(HeadOptions(plan), *this, scheduler,
                                                        scheduler, head_random);
}

World::~World() {
  for (const auto& process : processes_) process->Die(/*peers_notice=*/false);
  controller.reset();
}

std::shared_ptr<Process> World::StartProcess(int worker, absl::Duration after, bool rival) {
  const int pid = next_pid_++;
  worker::FaultPlan faults;
  if (At(worker) == nullptr && pid < 1000 + plan.shape.num_workers()) {
    faults = plan.launch_faults[static_cast<size_t>(worker)];
  }
  auto process = std::make_shared<Process>(*this, worker, pid, faults, rival);
  processes_.push_back(process);
  process->Start(after);
  return process;
}

std::shared_ptr<Process> World::At(int worker) const {
  for (auto it = processes_.rbegin(); it != processes_.rend(); ++it) {
    if ((*it)->worker() == worker) return *it;
  }
  return nullptr;
}

std::shared_ptr<Process> World::ByAddress(const std::string& address) const {
  for (const auto& process : processes_) {
    if (process->address() == address) return process;
  }
  return nullptr;
}

void World::Ended(Process* process, absl::Duration restart_after) {
  const auto it = std::find_if(processes_.begin(), processes_.end(),
                               [&](const auto& p) { return p.get() == process; });
  if (it == processes_.end()) return;
  ended_.push_back(std::move(*it));
  processes_.erase(it);
  scheduler.Schedule(absl::ZeroDuration(), [this] { ended_.clear(); });
  const int worker = process->worker();
  if (process->rival()) return;
  scheduler.Schedule(restart_after, [this, worker] {
    const bool held = std::any_of(processes_.begin(), processes_.end(), [worker](const auto& p) {
      return p->worker() == worker && !p->rival();
    });
    if (!held) StartProcess(worker, absl::ZeroDuration());
  });
}

void World::Inject(const Fault& fault) {
  using Kind = Fault::Kind;
  Note("FAULT ", NameOf(fault.kind), " worker ", fault.worker, " for ",
       absl::FormatDuration(fault.lasts));
  const absl::Time end = scheduler.Now() + fault.lasts;
  const std::shared_ptr<Process> process = At(fault.worker);
  switch (fault.kind) {
    case Kind::kPartition:
      partition_[fault.worker] = std::max(partition_[fault.worker], end);
      return;
    case Kind::kPeerPartition:
      peer_partition_[fault.worker] = std::max(peer_partition_[fault.worker], end);
      return;
    case Kind::kLoseTransfer:
      ++transfers_to_lose[fault.worker];
      return;
    case Kind::kTrouble:
      ++trouble_due[fault.worker];
      return;
    case Kind::kReplace:
      if (process != nullptr && process->paused()) {
        REACHED("sim.rival_started");
        StartProcess(fault.worker, absl::Milliseconds(1));
        process->BecomeRival();
      }
      return;
    default:
      break;
  }
  if (process == nullptr) return;
  if (fault.kind == Kind::kKill || fault.kind == Kind::kVanish) {
    process->Die(fault.kind == Kind::kKill);
    Ended(process.get(), fault.lasts);
  } else if (fault.kind == Kind::kPause) {
    process->Pause();
    scheduler.Schedule(fault.lasts, [weak = std::weak_ptr<Process>(process)] {
      if (auto p = weak.lock()) p->Resume();
    });
  } else if (fault.kind == Kind::kSlow) {
    process->SetSlowness(fault.factor);
    scheduler.Schedule(fault.lasts, [weak = std::weak_ptr<Process>(process)] {
      if (auto p = weak.lock()) p->SetSlowness(1);
    });
  }
}

void World::WorkerLost(int worker) {
  ++losses[worker];
  down[worker] = true;
}

void World::WorkerBack(int worker) { down[worker] = false; }

void World::Compiled(const std::string& key) { ++compiles[key]; }

void World::EpochChanged(EpochId epoch, const absl::Status& cause) {
  ++aborts;
  Note("head: epoch ", epoch.value(), " begins: ", std::string(cause.message()));
}

bool World::FaultPoint(const char* name) {
  return plan.fault_points.contains(name) && fault_random_.Below(10) == 0;
}

void World::Log(int level, absl::string_view text) {
  Note("log: ", text);
  // The simulation ends with it; the seed is what a person needs.
  if (level >= 4) {
    std::cerr << "seed " << plan.seed << ": " << std::string(text) << "\n" << trace.text();
  }
}

}  // namespace causeway::sim
