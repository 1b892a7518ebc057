// What a worker does with its commands: the buffer table, dependencies, and launch order.
//
// Commands come in stream order. One whose inputs are all there runs at once; one that waits (for a
// transfer, or for a parked command) is parked and everything independent runs ahead. Rules:
//   1. An operation captures its values when it comes, so Free never takes them from it.
//   2. A launch may take over its arguments' memory, so it waits for earlier parked readers of them.
//   3. Multi-worker launches (seq != 0) run strictly in stream order: a parked one holds back later
//      multi-worker ones and nothing else.
//   4. An error in an input becomes the error of every output, with the first cause kept; for a
//      multi-worker launch it closes the epoch here (launch_ledger.h).
//   5. Launches in flight are bounded, a device and in all: XLA:CPU deadlocks otherwise. What has
//      ended while it was issued, as small programs do on a CPU, is not in flight.
//   6. A multi-worker launch is issued while another is in flight only if it depends on the latest
//      one's results. XLA skips it then where the other fails. An independent one would go ahead on
//      that worker, meet its peers inside the failed one, and collectives carry no tag to notice:
//      wrong bytes, or the end of the process where the sizes differ.
//   7. A multi-worker launch waits for every Send that came before it. The device may hold this
//      thread inside the launch until all peers are in it too, and a peer may need what the Send
//      brings, or what a local program behind it computes, before it can come.
//   8. The first multi-worker launch of a binding in an epoch starts when all members could start
//      it: connecting for a collective, XLA waits only seconds for its peers, and a peer may still
//      be loading the program or be busy with other work. So does each launch of a binding that
//      calls its client: where a callback has failed, a member that knows of it does not come.
//   9. The outputs of a launch over several devices that calls its client are there when it has
//      ended: after a failed callback it goes on with zeros, and only its completion tells.
//
// Thread safety: none; all calls come from one thread. Time and waiting come in through GraphHost.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "causeway/device/device.h"
#include "causeway/worker/commands.h"
#include "causeway/worker/fault_plan.h"
#include "causeway/worker/graph_nodes.h"
#include "causeway/worker/launch_ledger.h"

namespace causeway::worker {

// What the graph needs from the process around it. Nothing here blocks.
class GraphHost {
 public:
  virtual ~GraphHost() = default;
  // Of a launch that has not ended yet, or not yet in its order. To be answered by
  // OpGraph::LaunchFinished on the graph's thread, in order for multi-worker launches; the ledger
  // hears of those first.
  virtual void Watch(std::shared_ptr<LaunchRecord> record) = 0;
  // Waits elsewhere and calls `done` there.
  virtual void AwaitBytes(std::unique_ptr<device::HostCopy> copy,
                          absl::AnyInvocable<void(absl::StatusOr<device::HostShard>)> done) = 0;
  virtual void AwaitArrays(std::vector<device::ArrayRef> arrays,
                           absl::AnyInvocable<void(absl::Status)> done) = 0;
  // Runs `work` later on the graph's thread. May be called from anywhere.
  virtual void Post(absl::AnyInvocable<void()> work) = 0;
  // May be called from anywhere; events of one thread keep their order.
  virtual void Emit(Event event) = 0;
  // Hands bytes to another worker; an error travels in their place.
  virtual void Push(WorkerId to, TransferId transfer, absl::StatusOr<device::HostBytes> bytes) = 0;
  // Runs code that may block for as long as a user likes, on a thread of its own.
  virtual void RunBlocking(absl::AnyInvocable<void()> work) = 0;
  // Counts bytes that went over a path of their own. May be called from anywhere.
  virtual void Moved(const char* kind, const char* path, int64_t bytes, absl::Duration spent) {}
  virtual absl::Time Now() = 0;
};

struct GraphOptions {
  int worker = 0;
  int num_workers = 1;
  int devices_per_host = 1;
  int max_inflight_multi = 8;
  int max_inflight_device = 16;
  bool rendezvous = true;  // rule 8
  int64_t max_unclaimed_bytes = int64_t{4} << 30;  // transfers that came before their Build
  absl::Duration transfer_timeout = absl::Minutes(10);
  FaultPlan faults;
};

class OpGraph {
 public:
  // All must outlive the graph.
  OpGraph(device::Device* device, GraphHost* host, LaunchLedger* ledger, GraphOptions options);

  // Commands, in stream order.
  void Run(Build build);
  void Run(Send send);
  void Run(Fetch fetch);
  void Run(FetchFile fetch);
  void Run(AwaitReady await);
  void Run(LoadProgram load);
  void Run(Bind bind);
  void Run(Unbind unbind);
  void Run(DropProgram drop);
  void Run(Launch launch);
  void Run(const Free& free);
  void Run(const SetNodes& nodes);
  void Run(const FailTransfers& fail);
  void Run(const Proceed& proceed);
  void Run(const FailTransfer& fail);

  // OpenEpoch in two steps, with the wait for launches in flight (bounded) between them.
  void CloseEpochs(EpochId next);
  EpochOpened OpenEpoch(const worker::OpenEpoch& open, const device::EpochSpec& spec);

  // Multi-worker launches of epochs up to `epoch` that were parked will not run.
  void DropParkedLaunches(EpochId epoch, const absl::Status& cause);

  // Bytes of a transfer have come, or never will.
  void TransferArrived(TransferId id, absl::StatusOr<device::HostBytes> bytes,
                       std::vector<int64_t> byte_strides);
  void LaunchFinished(const std::shared_ptr<LaunchRecord>& record, absl::Status status);
  // Gives up transfers that are overdue. To be called about once a second.
  void Tick();
  // Forgets everything: another life of this process begins, a spare's possibly in another place.
  void Reset(int worker);

  std::shared_ptr<const device::ProgramSource> FindProgram(ProgramId id) const;
  const std::vector<int32_t>& nodes() const { return nodes_; }
  // The next multi-worker launch if it cannot start yet, and what it waits for, in words.
  struct Waiting {
    LaunchSeq seq;  // 0 = none waits
    std::string what;
    bool could_start = false;  // and waits for its peers at the rendezvous
  };
  Waiting waiting_launch() const;
  // Those of these multi-worker launches that were issued, in words.
  std::string DescribeLaunches(absl::Span<const LaunchSeq> launches) const;
  struct Stats {
    int64_t buffers = 0, buffer_bytes = 0, loads = 0, launches = 0;
    int64_t edges = 0;  // ever made from an operation to one that waits for it
    int parked_launches = 0;
    int transfers = 0;  // awaited, or here before they were wanted
  };
  Stats stats() const;

 private:
  struct HostBinding;
  struct HostLaunch;
  struct Binding {
    std::shared_ptr<const device::ProgramSource> source;
    worker::Bind bind;
    std::vector<int> ordinals;  // local
    std::shared_ptr<device::Program> loaded;
    EpochId loaded_in;
    EpochId met_in;  // all members were at its first launch, or at this one if it calls its client
    std::shared_ptr<HostBinding> host;  // of programs that run in host memory
  };
  struct PendingLaunch {
    worker::Launch launch;
    std::shared_ptr<Binding> binding;
    std::vector<ValueRef> args, outputs;
    OperationRef operation;  // set when parked
    bool dropped = false;
    bool announced = false;  // the head knows that it could start
    enum class Fault { kNone, kSkip, kOutOfMemory } fault = Fault::kNone;
  };
  using PendingLaunchRef = std::shared_ptr<PendingLaunch>;
  struct BuildState;

  // Dependencies.
  ValueRef Find(BufferId id) const;  // a value in error when unknown
  ValueRef NewOutput(BufferId id);
  ValueRef ClaimTransfer(TransferId id);
  OperationRef MakeOperation(absl::Span<const ValueRef> reads, bool exclusive);
  // Null when it ran at once, else the parked operation.
  OperationRef Submit(absl::Span<const ValueRef> reads, absl::AnyInvocable<void()> run);
  void Precede(const OperationRef& first, const OperationRef& then);
  void Finish(Operation& operation);
  // Of a launch that will not run: ends once it would have been its turn.
  void Drop(Operation& operation);
  void Unblock(const OperationRef& operation);
  void Resolve(const ValueRef& value, absl::StatusOr<device::ArrayRef> array);
  void Settle(const ValueRef& value);
  void Pump();

  // Reading (op_graph_reads.cc). `done` is called here when there is no shard, or when it is small
  // and in reach, else on a thread of the host's.
  void ReadShard(const ValueRef& value, int32_t device,
                 absl::AnyInvocable<void(absl::StatusOr<device::HostShard>)> done);

  // Launches.
  void Enqueue(PendingLaunchRef launch);
  bool HasRoom(const PendingLaunch& launch) const;
  bool MetBefore(const PendingLaunch& launch) const;
  // Announces the launch if need be; false while the peers are awaited.
  bool Meets(PendingLaunch& launch);
  void Issue(PendingLaunch& launch);
  absl::StatusOr<std::shared_ptr<LaunchRecord>> IssueOnDevice(PendingLaunch& launch);
  void FailOutputs(PendingLaunch& launch, const absl::Status& cause);
  // Its outputs are there, or in error for good.
  void ReleaseHeld(const std::shared_ptr<LaunchRecord>& record, const absl::Status& status);
  void ApplyFaults(PendingLaunch& launch);
  absl::Status EnsureLoaded(Binding& binding);

  // Host programs (op_graph_host.cc).
  using HostStream = std::pair<SessionId, int64_t>;
  void BindHost(Binding& binding);
  void UnbindHost(const std::shared_ptr<HostBinding>& binding);
  void ReleaseHost(HostBinding& binding);
  void RunHost(Launch launch, const std::shared_ptr<HostBinding>& binding);
  void CaptureInputs(const std::shared_ptr<HostLaunch>& launch);
  void PumpHostStreams();
  void ForgetHostLaunches(const absl::Status& cause);
  void FinishHost(HostLaunch& launch, absl::StatusOr<std::vector<device::HostValue>> results);
  absl::StatusOr<device::ArrayRef> HostResult(const Bind::Output& output,
                                              const device::HostValue& result);

  // Builds.
  void GiveUp(TransferId id, absl::Status cause);
  void StartBuild(std::shared_ptr<BuildState> state);
  void FinishBuild(BuildState& state);
  absl::StatusOr<device::ArrayRef> MakeArray(BuildState& state);
  absl::StatusOr<device::HostBytes> JoinTextPieces(const BuildState& state, size_t shard);

  absl::StatusOr<device::ArrayRef> Use(Value& value);

  device::Device* const device_;
  GraphHost* const host_;
  LaunchLedger* const ledger_;
  GraphOptions options_;

  EpochId epoch_;
  std::vector<int32_t> nodes_;
  absl::flat_hash_map<BufferId, ValueRef> buffers_;
  absl::flat_hash_map<TransferId, ValueRef> transfers_;
  std::deque<TransferId> unclaimed_;
  int64_t unclaimed_bytes_ = 0;
  absl::flat_hash_map<ProgramId, std::shared_ptr<const device::ProgramSource>> programs_;
  absl::flat_hash_map<BindingId, std::shared_ptr<Binding>> bindings_;

  absl::flat_hash_map<HostStream, std::deque<std::shared_ptr<HostLaunch>>> host_streams_;
  absl::flat_hash_map<SessionId, int> host_releases_;  // under way
  int64_t life_ = 0;                                   // counts Reset()
  std::deque<OperationRef> runnable_;
  std::deque<PendingLaunchRef> multi_queue_;  // in stream order, blocked or not
  std::deque<PendingLaunchRef> local_ready_;  // unblocked, waiting for room
  std::vector<OperationRef> parked_sends_;    // some may be done already
  PendingLaunchRef swapped_;                  // fault injection only
  std::vector<int> inflight_;                 // by local ordinal
  int inflight_multi_ = 0;
  LaunchSeq last_multi_;  // the latest that was issued
  std::vector<std::shared_ptr<LaunchRecord>> issued_;   // multi-worker launches in flight
  std::vector<std::shared_ptr<LaunchRecord>> holding_;  // in flight with held outputs
  std::pair<EpochId, LaunchSeq> last_queued_;  // multi-worker launches
  bool pumping_ = false;
  int64_t multi_count_ = 0, launches_ = 0, loads_ = 0, edges_ = 0;
};

}  // namespace causeway::worker
