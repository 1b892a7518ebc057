// The acts of a simulation: assemble, work among faults, heal, prove, leave, count.
#include "causeway/sim/simulation.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/sim/client.h"
#include "causeway/sim/plan.h"
#include "causeway/sim/process.h"
#include "causeway/sim/world.h"

namespace causeway::sim {
namespace {

constexpr int64_t kStepsMax = 4'000'000;
constexpr absl::Duration kAssembleMax = absl::Seconds(60);
// From the end of the last fault until every place is filled again: missed heartbeats, a drain that
// takes its whole bound, a supervisor's pauses, and the same once more for who was hit on the way.
constexpr absl::Duration kHealMax = absl::Minutes(4);
constexpr absl::Duration kAnswerMax = absl::Minutes(2);
constexpr absl::Duration kSettle = absl::Minutes(3);

class Simulation {
 public:
  explicit Simulation(const Options& options)
      : plan_(MakePlan(options.seed, absl::FromUnixSeconds(1'700'000'002))),
        world_(plan_, options.trace, options.planted),
        scope_(&world_) {}

  Result Run() {
    Describe();
    for (int w = 0; w < plan_.shape.num_workers() + plan_.spares; ++w) {
      world_.StartProcess(w, absl::Milliseconds(100) * world_.random.Unit());
    }
    if (RunUntil("the cluster to assemble", kAssembleMax,
                 [this] { return world_.controller->Complete(); }) &&
        Work() && Heal() && Prove()) {
      Count();
    }
    return {std::move(world_.violations), world_.trace.text(), std::move(world_.reached),
            world_.scheduler.steps(), world_.values_checked, world_.errors_seen};
  }

 private:
  void Describe() {
    world_.Note("seed ", plan_.seed, ": ", plan_.shape.slices, " slices of ",
                plan_.shape.hosts_per_slice, " hosts of ", plan_.shape.devices_per_host,
                " devices, ", plan_.spares, " spares, ", plan_.clients, " clients, ",
                plan_.faults.size(), " faults", plan_.disk ? ", a disk" : "");
    for (const std::string& mark : plan_.fault_points) world_.Note("fault point ", mark);
  }

  // False, and a violation, when `done` does not come true in time.
  template <class Condition>
  bool RunUntil(const char* what, absl::Duration within, Condition done) {
    const absl::Time end = world_.scheduler.Now() + within;
    while (!done()) {
      if (world_.scheduler.Now() > end || world_.scheduler.steps() > kStepsMax) {
        std::string who;
        for (const auto& client : clients_) absl::StrAppend(&who, "; ", client->Outstanding());
        world_.Violation("waited in vain for ", what, who);
        return false;
      }
      if (!world_.scheduler.Step()) {
        world_.Violation("nothing happens any more while waiting for ", what);
        return false;
      }
    }
    return true;
  }

  bool Work() {
    const absl::Duration late = world_.scheduler.Now() - absl::FromUnixSeconds(1'700'000'002);
    for (const Fault& fault : plan_.faults) {
      world_.scheduler.Schedule(fault.at + late - world_.scheduler.Now(),
                                [this, fault] { world_.Inject(fault); });
    }
    for (int c = 0; c < plan_.clients; ++c) {
      clients_.push_back(std::make_unique<Client>(world_, c));
      clients_.back()->Start();
    }
    const absl::Time faults_end = plan_.faults_end + late;
    return RunUntil("the clients' operations and the faults", absl::Minutes(3), [&] {
      if (world_.scheduler.Now() <= faults_end) return false;
      for (const auto& client : clients_) {
        if (!client->finished()) return false;
      }
      return true;
    });
  }

  bool Heal() {
    // Complete twice: a zombie's death may not have been noticed the first time.
    const absl::Duration beats = plan_.heartbeat * 5;
    absl::Time since = world_.scheduler.Now();
    return RunUntil("the cluster to heal", kHealMax, [&] {
      if (!world_.controller->Complete()) since = world_.scheduler.Now();
      return world_.scheduler.Now() - since > beats;
    });
  }

  bool Prove() {
    for (const auto& client : clients_) client->Finish();
    return RunUntil("the clients' last answers", kAnswerMax, [this] {
      for (const auto& client : clients_) {
        if (!client->closed()) return false;
      }
      return true;
    });
  }

  // Nothing may be left anywhere.
  void Count() {
    const absl::Time end = world_.scheduler.Now() + kSettle;
    while (world_.scheduler.Now() < end && world_.scheduler.Step()) {
    }
    const core::ClusterStatus status = world_.controller->GetStatus();
    for (const char* name : {"buffers", "buffer_bytes", "pending_requests"}) {
      const int64_t left = status.gauges.at(name);
      if (left != 0) world_.Violation("the head is left with ", left, " ", name);
    }
    for (const core::WorkerStatus& worker : status.workers) {
      if (worker.unconfirmed_launches != 0) {
        world_.Violation("worker ", worker.id.value(), " never confirmed ",
                         worker.unconfirmed_launches, " launches");
      }
    }
    for (int w = 0; w < plan_.shape.num_workers(); ++w) {
      const auto process = world_.At(w);
      if (process == nullptr || process->machine().graph() == nullptr) continue;
      const worker::OpGraph::Stats stats = process->machine().graph()->stats();
      auto none = [&](const char* what, int64_t left) {
        if (left != 0) world_.Violation("worker ", w, " is left with ", left, " ", what);
      };
      none("buffers", stats.buffers);
      none("parked launches", stats.parked_launches);
      none("transfers", stats.transfers);
      none("launches in flight", process->machine().ledger().inflight());
    }
    if (plan_.disk && world_.disk.Status().hits > 0) REACHED("sim.program_from_disk");
    if (world_.disk.Status().dropped > 0) REACHED("sim.damaged_program_dropped");
    // A compile may be asked for again when the worker that had it dies.
    int losses = 0;
    for (const int n : world_.losses) losses += n;
    // What the head forgets, a disk without trouble remembers.
    const bool forgets = (plan_.max_programs < 100 || !plan_.fault_points.empty()) &&
                         (!plan_.disk || world_.disk.failed());
    for (const auto& [key, times] : world_.compiles) {
      if (times > 1 + losses && !forgets) {
        world_.Violation("compiled ", times, " times with ", losses, " losses: ", key);
      }
    }
  }

  const Plan plan_;
  World world_;
  SimScope scope_;
  std::vector<std::unique_ptr<Client>> clients_;
};

}  // namespace

Result Simulate(const Options& options) { return Simulation(options).Run(); }

}  // namespace causeway::sim
