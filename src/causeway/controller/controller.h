// The controller: sessions' arrays and programs, dispatch in one order, membership and epochs.
//
// It owns the truth and no tensor bytes. Client calls come in through core::Runtime, workers
// through core::WorkerSink; commands leave through core::WorkerLink. One lock covers everything
// from "is this worker alive" to "the command is queued on every worker", so launches that share
// devices reach all workers in one order. Nothing waits under the lock, and callbacks run after it
// is released.
//
// Thread safety: all public methods are thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "causeway/base/clock.h"
#include "causeway/base/limits.h"
#include "causeway/base/random.h"
#include "causeway/base/strong_id.h"
#include "causeway/base/timers.h"
#include "causeway/controller/compile_cache.h"
#include "causeway/controller/objects.h"
#include "causeway/controller/reshard_plan.h"
#include "causeway/core/epochs.h"
#include "causeway/core/runtime.h"
#include "causeway/core/status_source.h"
#include "causeway/core/worker_link.h"
#include "causeway/model/topology.h"

namespace causeway::controller {

// Hands out coordination node ids and hears of epochs; implemented by coordination/.
class Membership {
 public:
  virtual ~Membership() = default;
  // A node id that the worker's process never had; RESOURCE_EXHAUSTED when it has had all.
  virtual absl::StatusOr<int> NewNode(WorkerId worker) = 0;
  // The worker is another process from now on, which may get ids again that earlier ones had.
  virtual void NewProcess(WorkerId worker) {}
  virtual int num_nodes() const = 0;
  // Collectives of earlier epochs are over: fail what waits for their rendezvous.
  virtual void EpochChanged(EpochId epoch, const absl::Status& cause) = 0;
};

struct ControllerOptions {
  model::ClusterShape shape;
  std::string coordinator;  // host:port of the coordination service, as workers reach it
  std::string callbacks;    // host:port of the relay of host callbacks; "" = none
  // Called when no session holds the program of a group of host callbacks any more; may be null.
  std::function<void(const std::string& token, uint64_t group)> callbacks_gone;
  std::string sentinel;     // host:port where workers' deaths are listened for; "" = nowhere
  int max_inflight_launches = 8;
  absl::Duration heartbeat = absl::Seconds(5);
  int missed_beats_max = 3;
  // How long an epoch change may wait for a worker's collectives to break off.
  absl::Duration drain_max = absl::Seconds(10);
  // How long a worker may take to enter an epoch beyond that, its new XLA client included.
  absl::Duration open_max = absl::Minutes(2);
  // How long a launch over several workers may stand still because a living member does not start
  // it while another waits inside it; infinite: for ever.
  absl::Duration launch_start_max = absl::Minutes(10);
  // A failure that only says "my peer went away" waits this long for its true cause.
  absl::Duration peer_failure_grace = absl::Milliseconds(300);
  // What a worker must see to share memory with clients of this machine; "" = nothing is shared.
  std::string memory;
  // Transfers bear checksums.
  bool transfer_checksums = false;
  // Programs kept for the next session that compiles the same; those in use do not count as spare.
  size_t max_programs = 4096;
  int64_t max_program_bytes = int64_t{2} << 30;
  // Compiled programs of earlier heads; null: none. Borrowed, and asked after Shutdown only to be
  // ignored.
  CompileCache* compile_cache = nullptr;
  // Bytes of a host array that travel inside a command instead of beside it.
  int64_t inline_bytes_max = 64 << 10;
};

class Controller : public core::Runtime,
                   public core::WorkerSink,
                   public core::StatusSource,
                   private core::EpochHost {
 public:
  Controller(ControllerOptions options, Membership& membership, Clock& clock, Timers& timers,
             Random& random);
  ~Controller() override;

  // Tells the workers to end and fails everything that waits. Call before destruction.
  void Shutdown(const std::string& reason);
  // Whether every worker of the cluster has joined and opened the current epoch.
  bool Complete() const;
  // Waits for that, at most `timeout`.
  bool AwaitComplete(absl::Duration timeout);

  // core::Runtime
  core::ClusterView Describe() override;
  SessionId OpenSession(const std::string& peer) override;
  void CloseSession(SessionId session) override;
  bool MayGoOn(SessionId session, absl::AnyInvocable<void() &&>& resume) override;
  bool MayExecute(SessionId session, ExecutableHandle executable,
                  const std::vector<ArrayHandle>& args,
                  absl::AnyInvocable<void() &&> resume) override;
  uint64_t NewServerHandle(SessionId session) override;
  absl::Status MakeArray(SessionId session, ArrayHandle result, core::ArraySpec spec,
                         std::vector<core::HostShards> sources) override;
  void MakeErrorArrays(SessionId session, const std::vector<ArrayHandle>& results,
                       absl::Status error) override;
  absl::Status Assemble(SessionId session, ArrayHandle result, core::ArraySpec spec,
                        const std::vector<ArrayHandle>& parts, core::CopySemantics copy) override;
  absl::Status Disassemble(SessionId session, ArrayHandle array,
                           const std::vector<ArrayHandle>& results,
                           core::CopySemantics copy) override;
  absl::StatusOr<int> NumShards(SessionId session, ArrayHandle array) override;
  absl::Status FullyReplicatedShard(SessionId session, ArrayHandle array, ArrayHandle result,
                                    core::CopySemantics copy) override;
  absl::Status CopyArrays(SessionId session, const std::vector<ArrayHandle>& arrays,
                          const std::vector<DeviceId>& devices,
                          const std::optional<std::string>& memory_kind, core::CopySemantics copy,
                          const std::vector<ArrayHandle>& results) override;
  absl::Status RemapArrays(SessionId session, const std::vector<ArrayHandle>& arrays,
                           const std::vector<core::ArraySpec>& outputs,
                           const std::vector<core::RemapMapping>& mappings,
                           core::CopySemantics copy,
                           const std::vector<ArrayHandle>& results) override;
  absl::Status ReshardArrays(SessionId session, const std::vector<ArrayHandle>& arrays,
                             const std::vector<core::ArraySpec>& outputs, core::CopySemantics copy,
                             const std::vector<ArrayHandle>& results) override;
  absl::Status BitcastArrays(SessionId session, const std::vector<ArrayHandle>& arrays,
                             const std::vector<core::ArraySpec>& outputs, core::CopySemantics copy,
                             const std::vector<ArrayHandle>& results) override;
  void CopyToHost(SessionId session, ArrayHandle array,
                  std::optional<std::vector<int64_t>> byte_strides,
                  absl::AnyInvocable<void(absl::StatusOr<absl::Cord>) &&> done) override;
  void AwaitReady(SessionId session, const std::vector<ArrayHandle>& arrays,
                  core::StatusCallback done) override;
  absl::Status Delete(SessionId session, const std::vector<ArrayHandle>& arrays) override;
  absl::StatusOr<bool> IsDeleted(SessionId session, ArrayHandle array) override;
  absl::Status Destruct(SessionId session, const std::vector<ArrayHandle>& arrays) override;
  void Compile(SessionId session, core::CompileRequest request,
               absl::AnyInvocable<void(absl::StatusOr<std::shared_ptr<const core::ExecutableView>>)
                                  &&> done) override;
  absl::StatusOr<std::shared_ptr<const core::ExecutableView>> GetExecutable(
      SessionId session, ExecutableHandle executable) override;
  absl::StatusOr<core::ExecuteResult> Execute(SessionId session,
                                              const core::ExecuteRequest& request) override;
  void AwaitExecution(
      SessionId session, StatusHandle status,
      absl::AnyInvocable<void(absl::StatusOr<core::DeviceTimes>) &&> done) override;
  absl::Status DestructExecutable(SessionId session, ExecutableHandle executable) override;
  void GetProgramText(SessionId session, ExecutableHandle executable,
                      absl::AnyInvocable<void(absl::StatusOr<std::string>) &&> done) override;
  void GetCostAnalysis(
      SessionId session, ExecutableHandle executable,
      absl::AnyInvocable<void(absl::StatusOr<std::map<std::string, double>>) &&> done) override;

  // core::WorkerSink
  absl::StatusOr<core::WorkerAdmission> OnAttached(
      const core::WorkerHello& hello, std::shared_ptr<core::WorkerLink> link) override;
  void OnEvent(WorkerId worker, Incarnation incarnation, absl::string_view event) override;
  void OnDetached(WorkerId worker, Incarnation incarnation, const std::string& why) override;

  // core::StatusSource
  core::ClusterStatus GetStatus() override;
  core::EventLog& events() override { return events_; }

 private:
  // Holds the lock; on destruction flushes frees, releases it, then runs deferred callbacks.
  class Locked;

  // sessions.cc
  absl::StatusOr<Session*> FindSession(SessionId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // INVALID_ARGUMENT when unknown; the array's own error when it has one.
  absl::StatusOr<ArrayRef> FindArray(Session& session, ArrayHandle handle)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // As FindArray; also INVALID_ARGUMENT when deleted or donated.
  absl::StatusOr<ArrayRef> FindLiveArray(Session& session, ArrayHandle handle)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void BindError(Session& session, const std::vector<ArrayHandle>& handles,
                 const absl::Status& error) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // run_ahead.cc
  // Counts a piece of work on these devices; true: it is a mark, to be followed by MarkReached.
  bool MarkDue(Session& session, const DeviceList& list) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MarkReached(SessionId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Counts the making of a buffer, which its workers can be asked for.
  void MarkBuffer(Session& session, const BufferRef& buffer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // RESOURCE_EXHAUSTED when the session cannot hold so many more.
  absl::StatusOr<Session*> FindSessionFor(SessionId id, size_t new_arrays)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // buffers.cc
  absl::StatusOr<DeviceListRef> Intern(const std::vector<DeviceId>& devices)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  BufferRef NewBuffer(DeviceListRef list, model::DType dtype, std::string memory_kind)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FreeNow(const BufferRef& buffer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FlushFrees() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool PartLost(const Buffer& buffer, WorkerId worker) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Why it is.
  absl::Status PartError(const Buffer& buffer, WorkerId worker) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // A living worker has answered a question for one buffer alone with its loss.
  void NoteLostPart(const PendingRequest& request, WorkerId worker, const absl::Status& error)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // DATA_LOSS naming the first lost slice under the array, or OK.
  absl::Status CheckLoss(const Array& array) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // DATA_LOSS with the first loss of the place after `birth`, or else the latest.
  absl::Status LostError(WorkerId worker, int64_t birth = -1) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // One buffer with all shards of the array on its own device list (aliasing, no copy).
  absl::StatusOr<BufferRef> Whole(const ArrayRef& array) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  ArrayRef ErrorArray(absl::Status error) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static void MarkDeleted(const Array& array);
  static core::GateRef GateOf(const Array& array);

  // replicas.cc
  // For every shard a live one with the same part of the array; DATA_LOSS when a part has none.
  absl::StatusOr<std::vector<ShardRef>> LiveShards(const Array& array) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Arrays of all sessions that have a shard on the worker.
  int64_t CountArraysOn(WorkerId worker) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // copies.cc
  // Tells a shard's worker to send it, or a box of it, to another one.
  TransferId SendShard(const ShardRef& from, WorkerId to, const std::optional<model::Box>& box)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Where a shard of `buffer` on device `to` comes from when it is all of `from`: the same memory
  // where that may be, a copy, or a transfer.
  decltype(wire::ShardBuild::source) WholeShard(const ShardRef& from, DeviceId to, bool may_alias,
                                                Buffer& buffer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Binds what was made, or why not, to the client's handle.
  absl::Status Deliver(Session& session, ArrayHandle handle, const absl::StatusOr<ArrayRef>& made)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The source is used up by the result, if that is an array of its own.
  void Donate(const Array& source, Array& result) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<ArrayRef> CopyShards(const ArrayRef& array, const DeviceListRef& to,
                                      const std::string& memory_kind, bool always)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<ArrayRef> Reshard(const ArrayRef& array, const core::ArraySpec& to,
                                   bool always) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Reshards one array of the session into `result`; a failure is bound there and returned.
  absl::Status ReshardInto(Session& session, ArrayHandle array, const core::ArraySpec& to,
                           core::CopySemantics copy, ArrayHandle result)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The same bytes, shard by shard, as another type or shape.
  absl::StatusOr<ArrayRef> Bitcast(const ArrayRef& array, const core::ArraySpec& to)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SendBuild(const BufferRef& buffer,
                 absl::flat_hash_map<WorkerId, std::vector<wire::ShardBuild>>& shards)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // program_budget.cc
  // When there are too many programs, or bytes of them: forgets some that no session holds, those
  // first whose last use is longest ago.
  void MakeRoomForProgram() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Forgets these, here and on the workers.
  void ForgetPrograms(absl::FunctionRef<bool(const Program&)> spare)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // programs.cc
  // What else than the program decides how compiled code looks: the workers, their XLA, their CPUs.
  std::string CompileEnvironment() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes the compiled program from disk, or has it compiled.
  void FindOrCompile(const ProgramRef& program, const std::string& key)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // If no session holds the program any more, nothing will make its callbacks.
  void CallbacksGone(const ProgramRef& program) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StartCompile(const ProgramRef& program) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FinishCompile(const ProgramRef& program, PendingRequest& reply)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Compiled(const ProgramRef& program, absl::StatusOr<wire::CompileResult> result)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<BindingRef> Bind(const ProgramRef& program, const DeviceListRef& list)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EnsureLoaded(WorkerState& worker, const Binding& binding)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void LoadProgramOn(WorkerState& worker, const Program& program)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Introspect(SessionId session, ExecutableHandle executable, const std::string& what,
                  absl::AnyInvocable<void(PendingRequest&)> done);

  // host_programs.cc
  absl::StatusOr<std::shared_ptr<const core::ExecutableView>> MakeHostProgram(
      SessionId id, core::CompileRequest request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status PlanPlugin(Program& program, Binding& binding, std::vector<DeviceId>* devices)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DropHostProgram(const Binding& binding) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status LaunchHost(Session& session, const core::ExecuteRequest& request,
                          const Binding& binding, const core::ExecuteResult& names)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status LaunchReshard(Session& session, const core::ExecuteRequest& request,
                             const Binding& binding, core::ExecuteResult* names)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // arguments.cc
  static absl::Status BindParameters(Binding& binding);
  static absl::Status CheckArgument(Binding& binding, size_t index, const core::ArraySpec& spec);
  // Marks what the launch takes over as deleted. INVALID_ARGUMENT, and nothing is marked, when an
  // array that is taken over is an argument twice. The inputs that must survive go into `protect`.
  static absl::Status MarkDonations(const Binding& binding, const core::ExecuteRequest& request,
                                    absl::Span<const BufferRef> args,
                                    absl::InlinedVector<int, 4>* protect);

  // execute.cc
  // The request that the launch's workers report to, when the client wants its status, the launch
  // is a mark (run_ahead.cc), or the report settles `told`; 0 otherwise.
  RequestId WatchExecution(Session& session, StatusHandle status, const DeviceList& list,
                           const core::GateRef& gate, const core::GateRef& told = nullptr)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Launch(Session& session, const core::ExecuteRequest& request,
                      const Executable& executable, const core::ExecuteResult& names)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // reads.cc
  // Every part of an array once, from a replica that is still there.
  struct Part {
    ShardRef shard;
    model::Box box;
  };
  absl::StatusOr<std::vector<Part>> PartsOf(const Array& array) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // file_reads.cc
  absl::StatusOr<std::shared_ptr<const core::ExecutableView>> MakeFetchProgram(
      SessionId id, core::CompileRequest request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status FetchToFile(Session& session, const core::ExecuteRequest& request,
                           FetchProgram& program, StatusHandle status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // requests.cc
  RequestId NewRequest(absl::AnyInvocable<void(PendingRequest&)> done)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Expects one more reply to `request`, from `worker`; errs at once when it is dead.
  bool Expect(RequestId request, WorkerId worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // All commands of the request are out: from now on it may finish.
  void Seal(RequestId request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Replied(RequestId request, const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Defer(absl::AnyInvocable<void() &&> callback) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // membership.cc
  WorkerState& State(WorkerId worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  wire::NodeMap Nodes() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // To be called before a command for which the worker needs to know its peers.
  void TellNodes(WorkerState& worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void WorkerLost(WorkerState& worker, const std::string& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Writes the verdict down: from now on the place is empty, and this is why.
  absl::Status NoteLoss(WorkerState& worker, const std::string& why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Gives the place to a worker: its Welcome, the epoch, and word of it to the others.
  absl::Status Join(WorkerState& worker, const core::WorkerHello& hello,
                    std::shared_ptr<core::WorkerLink> link,
                    const core::WorkerAdmission& admission) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The place that this incarnation holds; nullptr when it holds none (any more).
  WorkerState* Living(Incarnation incarnation) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // spares.cc
  absl::Status TakeSpare(Spare spare) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status FillPlace(WorkerState& place, Spare& spare) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FillFromSpares(WorkerState& place) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteSpare(const Spare& spare, const WorkerState* place, const std::string& what)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SpareEvent(Incarnation incarnation, const wire::Event& event)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SpareGone(Incarnation incarnation, const std::string& why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // heartbeats.cc
  void Heartbeat();
  void BeatLater(absl::Duration after);
  // Sends the ping that is due, and takes down when to look again. False: nobody answers.
  bool Beats(core::Pulse& pulse, core::WorkerLink& link, absl::Time* next)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // worker_events.cc
  void Handle(WorkerState& worker, wire::Event event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TransferFailed(const WorkerState& from, const wire::TransferFailedEvent& lost)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // epoch_actions.cc: core::EpochHost, called by epochs_ under the lock
  absl::StatusOr<int> NewNode(WorkerId member) override;
  void Confirmed(LaunchSeq seq) override;
  void FailLaunches(const absl::Status& cause) override;
  void Abort(EpochId epoch, EpochId next, absl::Span<const WorkerId> members,
             const absl::Status& cause) override;
  void Open(EpochId epoch, absl::Span<const WorkerId> members) override;
  void SetNodes(EpochId epoch, absl::Span<const WorkerId> members, bool left) override;
  void Proceed(EpochId epoch, LaunchSeq seq, absl::Span<const WorkerId> members) override;
  void SliceLost(int slice, WorkerId member, const absl::Status& cause) override;
  void SliceBack(int slice, WorkerId member) override;
  void SetTimer(core::EpochTimer timer, absl::Duration after) override;
  void GiveUp(WorkerId member, const std::string& why) override;

  const ControllerOptions options_;
  Membership& membership_;
  Clock& clock_;
  Timers& timers_;
  Random& random_;
  const std::string push_token_;  // the workers of this cluster know each other by it

  core::EventLog events_{limits::kEventsMax};

  mutable absl::Mutex mu_;
  model::Topology topology_ ABSL_GUARDED_BY(mu_);
  std::vector<WorkerState> workers_ ABSL_GUARDED_BY(mu_);
  std::vector<Spare> spares_ ABSL_GUARDED_BY(mu_);  // in order of arrival
  core::Epochs epochs_ ABSL_GUARDED_BY(mu_);
  absl::Time recovery_begun_ ABSL_GUARDED_BY(mu_);  // wall
  wire::Encoded nodes_ ABSL_GUARDED_BY(mu_);  // SetNodes of the members at present; or null
  // Of the launches that epochs_ gave a place, from first_gate_ on; null once confirmed.
  std::deque<core::GateRef> gates_ ABSL_GUARDED_BY(mu_);
  uint64_t first_gate_ ABSL_GUARDED_BY(mu_) = 1;
  int64_t version_ ABSL_GUARDED_BY(mu_) = 1;
  uint64_t next_incarnation_ ABSL_GUARDED_BY(mu_) = 1;
  uint64_t program_uses_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;  // buffers, programs, bindings, transfers, requests
  uint64_t next_session_ ABSL_GUARDED_BY(mu_) = 1;
  bool shut_down_ ABSL_GUARDED_BY(mu_) = false;
  absl::flat_hash_map<SessionId, std::unique_ptr<Session>> sessions_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<std::vector<DeviceId>, DeviceListRef> lists_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<std::string, ProgramRef> programs_ ABSL_GUARDED_BY(mu_);
  std::map<std::pair<ProgramId, uint64_t>, BindingRef> bindings_ ABSL_GUARDED_BY(mu_);
  ReshardPlans reshard_plans_ ABSL_GUARDED_BY(mu_){limits::kReshardPlansMax};
  absl::flat_hash_map<RequestId, PendingRequest> requests_ ABSL_GUARDED_BY(mu_);
  // Buffers without references, not yet told to their workers.
  std::vector<std::pair<BufferId, DeviceListRef>> graveyard_ ABSL_GUARDED_BY(mu_);
  int64_t live_buffers_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t live_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<absl::AnyInvocable<void() &&>> deferred_ ABSL_GUARDED_BY(mu_);
  Counters counters_ ABSL_GUARDED_BY(mu_);
  // Cancels the heartbeat when the controller goes first.
  std::shared_ptr<bool> alive_mark_;
};

}  // namespace causeway::controller
