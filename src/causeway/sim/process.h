// One worker process: the production machine over a fake device, its lanes as events of the clock.
//
//   stream --> reader lane --> machine --> operation lane --> device --> watch lanes --> machine
//
// Each lane takes one thing at a time, after a delay of its own, so the lanes meet in every order
// that threads could. A paused process keeps what happens to it for later (SIGSTOP).
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "causeway/device/fake_device.h"
#include "causeway/sim/channel.h"
#include "causeway/sim/world.h"
#include "causeway/worker/event_queue.h"
#include "causeway/worker/machine.h"

namespace causeway::sim {

class Link;

// One line about an encoded command, for the trace.
std::string Describe(const std::string& command);

class Process final : public worker::MachineHost, public std::enable_shared_from_this<Process> {
 public:
  using Batch = std::vector<std::shared_ptr<const std::string>>;

  Process(World& world, int home, int pid, worker::FaultPlan faults);
  ~Process() override;
  void Start(absl::Duration after);

  int home() const { return home_; }
  bool alive() const { return alive_; }
  const std::string& address() const { return address_; }
  bool rival() const { return rival_; }
  bool paused() const { return paused_; }
  const worker::Machine& machine() const { return *machine_; }
  worker::Machine& machine() { return *machine_; }
  bool attached() const { return link_ != nullptr; }

  // ---- faults
  // `peers_notice`: its connections break; else nobody is told anything.
  void Die(bool peers_notice);
  void Pause();
  void Resume();
  void SetSlowness(double factor) { slowness_ = factor; }
  // Another process has its place: nobody starts this one again.
  void BecomeRival() { rival_ = true; }

  // ---- the network's calls
  void OnCommands(Link* link, const Batch& batch);
  void OnBulk(const Batch& batch);
  void OnStreamEnd(Link* link, const absl::Status& why);
  void OnPush(TransferId transfer, absl::StatusOr<device::HostBytes> bytes);

  // ---- worker::MachineHost
  void Watch(std::shared_ptr<worker::LaunchRecord> record) override;
  void AwaitBytes(std::unique_ptr<device::HostCopy> copy,
                  absl::AnyInvocable<void(absl::StatusOr<device::HostShard>)> done) override;
  void AwaitArrays(std::vector<device::ArrayRef> arrays,
                   absl::AnyInvocable<void(absl::Status)> done) override;
  void Post(absl::AnyInvocable<void()> work) override;
  void Emit(worker::Event event) override;
  void Push(WorkerId to, TransferId transfer, absl::StatusOr<device::HostBytes> bytes) override;
  void RunBlocking(absl::AnyInvocable<void()> work) override { RunAside(std::move(work)); }
  absl::Time Now() override { return world_.scheduler.Now(); }
  void RunAside(absl::AnyInvocable<void()> work) override;
  bool AsideIdle() override { return aside_ == 0; }
  void CutCollectives() override;
  void SetPeers(const worker::NodeMap& nodes) override { peers_ = nodes.data_addresses; }
  void OnWelcome(const worker::Welcome& welcome) override;
  void OnLifeStarted() override;
  worker::ProcessStats ReadStats() override { return {}; }
  void GiveUp(const std::string& why) override;
  void Leave(const std::string& why) override;

 private:
  using Work = absl::AnyInvocable<void()>;
  // Runs `work` in this process after a delay; never once it is dead, later when it is paused.
  void Later(absl::Duration delay, Work work);
  absl::Duration Step();  // what a thread takes to get to its next turn
  void Exit(const std::string& why);

  void TryAttach();
  void ReaderTurn();
  void OperationTurn();
  void RunOperation();
  void WatchTurn(std::deque<std::shared_ptr<worker::LaunchRecord>>* records, bool* busy);
  void CutTurn();
  void Progressed();
  void LookAround();
  void EmitTurn();
  void TickTurn();

  struct Copy {
    std::unique_ptr<device::HostCopy> copy;
    absl::AnyInvocable<void(absl::StatusOr<device::HostShard>)> done;
  };
  struct Arrays {
    std::vector<device::ArrayRef> arrays;
    absl::AnyInvocable<void(absl::Status)> done;
  };

  World& world_;
  const int home_, pid_;
  const std::string address_;
  int place_;  // in the cluster, or the one that it would like; -1: any
  bool rival_ = false;
  bool alive_ = true, paused_ = false;
  std::string leaving_;  // why, once it is to end
  double slowness_ = 1;
  std::vector<Work> frozen_;
  std::unique_ptr<device::FakeDevice> device_;
  std::unique_ptr<worker::Machine> machine_;

  std::shared_ptr<Link> link_;
  absl::Time lost_at_;
  bool was_attached_ = false;
  worker::EventQueue events_;
  std::deque<std::shared_ptr<const std::string>> inbox_;
  bool reader_busy_ = false, reader_held_ = false;
  std::deque<Work> operations_;
  bool operation_busy_ = false, emit_busy_ = false, look_due_ = false, cutting_ = false;
  std::deque<std::shared_ptr<worker::LaunchRecord>> multi_, local_;
  bool multi_busy_ = false, local_busy_ = false;
  std::vector<std::unique_ptr<Copy>> copies_;
  std::vector<std::unique_ptr<Arrays>> arrays_;
  int aside_ = 0;
  std::vector<std::string> peers_;
  std::map<std::string, std::unique_ptr<Channel>> pushes_;  // by address
};

}  // namespace causeway::sim
