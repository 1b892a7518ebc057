// Everything that a simulation shares: time, chance, the network, the head, and what went wrong.
//
// Thread safety: none; a simulation is one thread.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "causeway/base/probes.h"
#include "causeway/base/random.h"
#include "causeway/controller/controller.h"
#include "causeway/coordination/topology.h"
#include "causeway/device/fake_fabric.h"
#include "causeway/sim/disk.h"
#include "causeway/sim/plan.h"
#include "causeway/sim/scheduler.h"
#include "causeway/sim/trace.h"

namespace causeway::sim {

class Process;

class World final : public SimHooks, public controller::Membership {
 public:
  World(const Plan& plan, bool trace, std::set<std::string> planted);
  ~World() override;

  // ---- what happens
  template <class... Parts>
  void Note(const Parts&... parts) {
    trace.Line(scheduler.Now(), parts...);
  }
  // An invariant does not hold. The simulation goes on to its end.
  template <class... Parts>
  void Violation(const Parts&... parts) {
    std::string text = absl::StrCat(parts...);
    Note("VIOLATION ", text);
    violations.push_back(std::move(text));
  }

  // ---- processes
  // Starts one at `home`: the place that it would rather have, or from num_workers() on a spare's.
  std::shared_ptr<Process> StartProcess(int home, absl::Duration after);
  // The process that holds the place; when none does, the youngest one at that home, or null.
  std::shared_ptr<Process> At(int worker) const;
  std::shared_ptr<Process> ByAddress(const std::string& address) const;
  // It has ended by itself or by force; a supervisor starts the next one.
  void Ended(Process* process, absl::Duration restart_after);
  void Inject(const Fault& fault);
  absl::Time HeadOpenAt(int home) const { return partition_[home]; }
  absl::Time PeersOpenAt(int a, int b) const {
    return std::max(peer_partition_[a], peer_partition_[b]);
  }

  // ---- what is known of the truth
  void WorkerLost(int worker);   // the controller may say so from now on
  void WorkerBack(int worker, const std::shared_ptr<Process>& process);
  // Of two processes one stands by: a place must not stay empty then.
  void ExpectFilled(int worker);
  void Compiled(const std::string& key);

  // SimHooks
  void Reached(const char* name) override { reached.insert(name); }
  bool FaultPoint(const char* name) override;
  bool Planted(const char* name) override { return planted.contains(name); }
  void Log(int level, absl::string_view text) override;
  // Membership
  absl::StatusOr<int> NewNode(WorkerId worker) override { return nodes_.New(worker); }
  void NewProcess(WorkerId worker) override { nodes_.NewProcess(worker); }
  int num_nodes() const override { return nodes_.num_nodes(); }
  void EpochChanged(EpochId epoch, const absl::Status& cause) override;

  const Plan& plan;
  Scheduler scheduler;
  Trace trace;
  FakeRandom random;         // the network's and the processes' chance
  FakeRandom head_random;    // the controller's
  device::FakeFabric fabric;
  const std::set<std::string> planted;
  Disk disk;
  std::unique_ptr<controller::Controller> controller;

  std::vector<std::string> violations;
  std::set<std::string> reached;
  std::vector<int> losses;       // by worker: lives that the head gave up
  std::vector<bool> down;        // by worker
  std::vector<int> troubles;     // by worker: computations that failed on purpose
  std::vector<int> trouble_due;  // by worker: computations that will
  std::vector<int> transfers_to_lose;  // by worker
  int lost_transfers = 0;
  int aborts = 0;                // epochs that ended
  int64_t values_checked = 0, errors_seen = 0;
  std::map<std::string, int> compiles;

 private:
  coordination::NodeIds nodes_;
  FakeRandom fault_random_;
  std::vector<absl::Time> partition_;       // by home
  std::vector<absl::Time> peer_partition_;  // by place
  std::vector<std::weak_ptr<Process>> holders_;
  std::vector<std::shared_ptr<Process>> processes_;
  std::vector<std::shared_ptr<Process>> ended_;  // destroyed outside their own calls
  int next_pid_ = 1000;
};

}  // namespace causeway::sim
