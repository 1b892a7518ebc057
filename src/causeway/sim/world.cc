// Processes, faults, and the marks of one simulation.
#include "causeway/sim/world.h"

#include <algorithm>
#include <iostream>
#include <utility>

#include "causeway/sim/process.h"

namespace causeway::sim {
namespace {

controller::ControllerOptions HeadOptions(const Plan& plan, Disk& disk) {
  controller::ControllerOptions options;
  options.shape = plan.shape;
  options.coordinator = "sim:0";
  options.max_inflight_launches = plan.max_inflight_launches;
  options.heartbeat = plan.heartbeat;
  options.drain_max = plan.drain_max;
  options.launch_start_max = absl::Seconds(60);  // longer than any partition lasts
  options.max_programs = plan.max_programs;
  options.inline_bytes_max = plan.inline_bytes_max;
  if (plan.disk) options.compile_cache = &disk;
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
      disk(scheduler, plan.seed * 3 + 4),
      nodes_(Nodes(plan)),
      fault_random_(plan.seed * 3 + 3) {
  const size_t workers = static_cast<size_t>(plan.shape.num_workers());
  losses.resize(workers);
  down.assign(workers, true);
  troubles.resize(workers);
  trouble_due.resize(workers);
  transfers_to_lose.resize(workers);
  partition_.assign(workers + static_cast<size_t>(plan.spares), absl::InfinitePast());
  peer_partition_.assign(workers, absl::InfinitePast());
  holders_.resize(workers);
  controller = std::make_unique<controller::Controller>(HeadOptions(plan, disk), *this, scheduler,
                                                        scheduler, head_random);
}

World::~World() {
  for (const auto& process : processes_) process->Die(/*peers_notice=*/false);
  controller.reset();
}

std::shared_ptr<Process> World::StartProcess(int home, absl::Duration after) {
  const int pid = next_pid_++;
  worker::FaultPlan faults;
  if (At(home) == nullptr && pid < 1000 + plan.shape.num_workers()) {
    faults = plan.launch_faults[static_cast<size_t>(home)];
  }
  auto process = std::make_shared<Process>(*this, home, pid, faults);
  processes_.push_back(process);
  process->Start(after);
  return process;
}

std::shared_ptr<Process> World::At(int worker) const {
  if (worker < plan.shape.num_workers()) {
    if (auto holder = holders_[worker].lock(); holder != nullptr && holder->alive()) return holder;
  }
  for (auto it = processes_.rbegin(); it != processes_.rend(); ++it) {
    if ((*it)->home() == worker) return *it;
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
  const int home = process->home();
  if (process->rival()) return;
  scheduler.Schedule(restart_after, [this, home] {
    const bool held = std::any_of(processes_.begin(), processes_.end(), [home](const auto& p) {
      return p->home() == home && !p->rival();
    });
    if (!held) StartProcess(home, absl::ZeroDuration());
  });
}

void World::Inject(const Fault& fault) {
  using Kind = Fault::Kind;
  Note("FAULT ", NameOf(fault.kind), " worker ", fault.worker, " for ",
       absl::FormatDuration(fault.lasts));
  const absl::Time end = scheduler.Now() + fault.lasts;
  const std::shared_ptr<Process> process = At(fault.worker);
  switch (fault.kind) {
    case Kind::kPartition: {
      const int home = process == nullptr ? fault.worker : process->home();
      partition_[home] = std::max(partition_[home], end);
      return;
    }
    case Kind::kDisk:
      disk.Fail(static_cast<Disk::Trouble>(static_cast<int>(fault.factor * 4)));
      scheduler.Schedule(fault.lasts, [this] { disk.Mend(); });
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
        StartProcess(process->home(), absl::Milliseconds(1));
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
  holders_[worker].reset();
}

void World::WorkerBack(int worker, const std::shared_ptr<Process>& process) {
  if (process != nullptr && process->home() != worker) REACHED("sim.spare_took_a_place");
  down[worker] = false;
  holders_[worker] = process;
}

void World::ExpectFilled(int worker) {
  if (plan.spares == 0 || !down[worker]) return;
  if (controller->GetStatus().gauges.at("spares") > 0) {
    Violation("the place of worker ", worker, " is empty while a spare stands by");
  }
}

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
