// What a worker does with every command, from Welcome to Shutdown: the part that knows no thread.
//
// The shell around it (worker.cc over threads and gRPC, the simulator over virtual time) keeps two
// lanes and performs what MachineHost asks for:
//
//   reader lane      OnCommand in stream order. After a Welcome nothing more is delivered until
//                    OnLifeStarted: no command of a new life may meet what is left of an old one.
//   operation lane   what was posted, in order. While waiting_until() is set nothing of it runs;
//                    the shell waits until Quiet() or that time, whichever is first, and calls
//                    EndWait(). An epoch change waits so for the launches of the older epoch.
//
//        Welcome             OpenEpoch                        quiet
//   (none) ----> life started ----> draining ----------------------------> epoch open
//                   ^                  | late: cut, later: EpochOpened(error)   |
//                   +---- Welcome of another incarnation, once quiet -----------+
//
// Launches that outlive the drain will never end: the head gives the worker up, and at the next
// Welcome the process ends, so that its supervisor starts a fresh one.
//
// Thread safety: OnCommand, OnChunk, Completed and Emit may run beside the operation lane, whose
// calls (posted work, EndWait, Tick) come one at a time.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "causeway/device/device.h"
#include "causeway/worker/commands.h"
#include "causeway/worker/fault_plan.h"
#include "causeway/worker/launch_ledger.h"
#include "causeway/worker/op_graph.h"
#include "causeway/worker/process_stats.h"
#include "causeway/worker/transfer_assembler.h"

namespace causeway::worker {

// What the machine needs from the process around it, beside what the graph needs. Nothing blocks.
class MachineHost : public GraphHost {
 public:
  // Work that takes long (compilation), off both lanes and in no order.
  virtual void RunAside(absl::AnyInvocable<void()> work) = 0;
  // Nothing given to RunAside, AwaitBytes or AwaitArrays is going on.
  virtual bool AsideIdle() = 0;
  // Breaks off collectives, now and again until the ledger is idle.
  virtual void CutCollectives() = 0;
  // Where the workers are, and which shared memory they see.
  virtual void SetPeers(const NodeMap& nodes) = 0;
  // Adds what this process counts of transfers.
  virtual void CountTransfers(Pong* pong) {}
  // The head's words of welcome, before anything else of that life.
  virtual void OnWelcome(const Welcome& welcome) = 0;
  virtual void OnLifeStarted() = 0;
  virtual ProcessStats ReadStats() = 0;
  // What this process holds cannot be cleared: it has to end, so that a fresh one takes its place.
  virtual void GiveUp(const std::string& why) = 0;
  // The same, once the head has heard what was emitted before, or very soon anyway.
  virtual void Leave(const std::string& why) = 0;
};

struct MachineOptions {
  int worker = 0;  // the place in the cluster, until a Welcome names one
  FaultPlan faults;
  absl::Duration transfer_timeout = absl::Minutes(10);
  // How long what an older life left behind may take to end.
  absl::Duration reset_patience = absl::Seconds(20);
};

class Machine final : private GraphHost {
 public:
  // Both must outlive the machine.
  Machine(MachineOptions options, device::Device* device, MachineHost* host);

  // Reader lane; chunks may come on threads of their own, those of one transfer in order.
  void OnCommand(Command command);
  void OnChunk(Chunk chunk);  // of the head
  TransferAssembler& assembler() { return assembler_; }  // for what peers send
  // A transfer from here that its receiver could not be given. Any thread.
  void OnSendFailed(WorkerId to, TransferId transfer, absl::Status why) {
    Emit(TransferFailed{transfer, to, std::move(why)});
  }

  // Operation lane.
  std::optional<absl::Time> waiting_until() const;
  bool Quiet();
  void EndWait();
  // To be called about once a second.
  void Tick();

  // A launch that the host was given to watch has ended; in order for multi-worker launches.
  void Completed(const std::shared_ptr<LaunchRecord>& record, absl::Status status);

  // The process ends: launches of all epochs are refused and those in flight broken off.
  void Stop();

  LaunchLedger& ledger() { return ledger_; }
  const LaunchLedger& ledger() const { return ledger_; }
  // What the operation lane began last, in a word or two. Any thread.
  const char* doing() const { return doing_; }
  // Null before the first life. Operation lane.
  const OpGraph* graph() const { return graph_.get(); }

 private:
  // GraphHost, for the graph.
  void Watch(std::shared_ptr<LaunchRecord> record) override { host_->Watch(std::move(record)); }
  void AwaitBytes(std::unique_ptr<device::HostCopy> copy,
                  absl::AnyInvocable<void(absl::StatusOr<device::HostShard>)> done) override {
    host_->AwaitBytes(std::move(copy), std::move(done));
  }
  void AwaitArrays(std::vector<device::ArrayRef> arrays,
                   absl::AnyInvocable<void(absl::Status)> done) override {
    host_->AwaitArrays(std::move(arrays), std::move(done));
  }
  void Post(absl::AnyInvocable<void()> work) override { host_->Post(std::move(work)); }
  void Emit(Event event) override;
  void Push(WorkerId to, TransferId transfer, absl::StatusOr<device::HostBytes> bytes) override;
  void RunBlocking(absl::AnyInvocable<void()> work) override {
    host_->RunBlocking(std::move(work));
  }
  void Moved(const char* kind, const char* path, int64_t bytes, absl::Duration spent) override {
    host_->Moved(kind, path, bytes, spent);
  }
  absl::Time Now() override { return host_->Now(); }

  void On(Welcome welcome);
  void On(OpenEpoch open);
  void On(SetNodes nodes);
  void On(AbortEpoch abort);
  void On(Compile compile);
  void RunCompile(Compile compile);
  void On(Introspect introspect);
  void On(Ping ping);
  void LookForOverdueFailure();
  void On(Chunk chunk) { OnChunk(std::move(chunk)); }
  void On(FailTransfer fail);
  void On(const Shutdown& shutdown);
  template <class T>
  void On(T command);  // the graph's

  void StartLife(const Welcome& welcome);
  void BeginLife();
  void StartOpening(OpenEpoch open);
  void FinishOpening();

  const MachineOptions options_;
  device::Device* const device_;
  MachineHost* const host_;
  LaunchLedger ledger_;
  TransferAssembler assembler_;
  std::atomic<const char*> doing_{"nothing"};
  std::atomic<bool> muted_{false};  // events of an older life must not reach the head
  std::atomic<uint64_t> aborted_by_head_{0};
  std::atomic<int> place_;  // in the cluster
  std::atomic<uint64_t> life_{0};  // the incarnation that the head gave last
  std::atomic<int64_t> compiles_{0};
  std::atomic<int64_t> buffers_{0}, buffer_bytes_{0}, loads_{0}, launches_{0};

  mutable absl::Mutex progress_mu_;
  OpGraph::Waiting waiting_ ABSL_GUARDED_BY(progress_mu_);  // as of the latest Ping

  absl::Mutex early_mu_;
  bool opened_ ABSL_GUARDED_BY(early_mu_) = false;  // an epoch, once in this process
  std::vector<Compile> early_ ABSL_GUARDED_BY(early_mu_);  // asked before that

  // The operation lane's.
  struct Opening {
    OpenEpoch open;
    absl::Time start;
    absl::Duration bound;
    bool patient = false;  // nothing was broken off: running launches get a chance first
  };
  struct EarlyTransfer {
    TransferId transfer;
    absl::StatusOr<device::HostBytes> bytes;
    std::vector<int64_t> strides;
  };
  std::unique_ptr<OpGraph> graph_;
  std::vector<EarlyTransfer> early_transfers_;  // those that came before it
  Welcome welcome_;
  int ticks_until_forgetting_ = 0;  // 0: nothing of older epochs is to be freed
  std::optional<absl::Time> until_;
  std::optional<Opening> opening_;     // at most one of the two is set, when until_ is
  std::optional<Welcome> next_life_;
};

}  // namespace causeway::worker
