// Turns each RPC into one call of the store, the task table or the barriers.
#include "causeway/coordination/coordination_service.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/limits.h"
#include "causeway/base/log.h"
#include "causeway/base/status_macros.h"
#include "causeway/coordination/held_call.h"
#include "coordination.grpc.pb.h"

namespace causeway::coordination {
namespace {

namespace pb = xla::coordination;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

void Fill(const std::string& key, std::string value, pb::KeyValueEntry* entry) {
  entry->set_key(key);
  entry->set_value(std::move(value));
}

}  // namespace

class CoordinationService::Impl : public pb::CoordinationService::CallbackService {
 public:
  Impl(KvStore& store, TaskTable& tasks, Barriers& barriers, uint64_t incarnation)
      : store_(store), tasks_(tasks), barriers_(barriers), incarnation_(incarnation) {}

  ServerUnaryReactor* RegisterTask(CallbackServerContext* context,
                                   const pb::RegisterTaskRequest* request,
                                   pb::RegisterTaskResponse* response) override {
    LOG(INFO) << "node " << request->source_task_id() << " registers with coordination";
    tasks_.SetIncarnation(request->source_task_id(), request->incarnation());
    response->set_service_incarnation(incarnation_);
    return Now(context, absl::OkStatus());
  }

  ServerUnaryReactor* Heartbeat(CallbackServerContext* context, const pb::HeartbeatRequest*,
                                pb::HeartbeatResponse* response) override {
    response->set_service_incarnation(incarnation_);
    return Now(context, absl::OkStatus());
  }

  ServerUnaryReactor* ShutdownTask(CallbackServerContext* context,
                                   const pb::ShutdownTaskRequest* request,
                                   pb::ShutdownTaskResponse*) override {
    tasks_.End(request->source_task_id(), absl::CancelledError("it left"));
    return Now(context, absl::OkStatus());
  }

  // XLA's client takes CANCELLED as an orderly end of polling; any other end, a lost connection
  // among them, ends its process. The head tells workers of failures itself, and a worker has to
  // outlive its head, so nobody is kept polling.
  ServerUnaryReactor* PollForError(CallbackServerContext* context, const pb::PollForErrorRequest*,
                                   pb::PollForErrorResponse*) override {
    return Now(context, absl::CancelledError("errors are told on the control stream"));
  }

  ServerUnaryReactor* ReportErrorToService(CallbackServerContext* context,
                                           const pb::ReportErrorToServiceRequest* request,
                                           pb::ReportErrorToServiceResponse*) override {
    LOG(WARNING) << "node " << request->source_task_id() << " reports error "
                 << request->error_code() << ": " << request->error_message();
    return Now(context, absl::OkStatus());
  }

  ServerUnaryReactor* InsertKeyValue(CallbackServerContext* context,
                                     const pb::InsertKeyValueRequest* request,
                                     pb::InsertKeyValueResponse*) override {
    return Now(context, store_.Insert(request->kv().key(), request->kv().value(),
                                      request->allow_overwrite()));
  }

  ServerUnaryReactor* GetKeyValue(CallbackServerContext*, const pb::GetKeyValueRequest* request,
                                  pb::GetKeyValueResponse* response) override {
    auto* call = new HeldCall();
    // gRPC neither cancels nor deletes the call before this handler has returned it.
    const uint64_t waiter =
        store_.Get(request->key(), [call, request, response](absl::StatusOr<std::string> value) {
          if (value.ok()) Fill(request->key(), *std::move(value), response->mutable_kv());
          call->Answer(value.status());
        });
    if (waiter == 0) return call;
    // Looked at after the wait has begun: EndEpoch ends the nodes before it ends the waits.
    const absl::Status over = EndOfMeeting(request->key());
    if (!over.ok() && store_.CancelGet(waiter)) {
      call->Answer(over);
      return call;
    }
    call->OnDrop([this, waiter] { return store_.CancelGet(waiter); });
    return call;
  }

  ServerUnaryReactor* TryGetKeyValue(CallbackServerContext* context,
                                     const pb::TryGetKeyValueRequest* request,
                                     pb::TryGetKeyValueResponse* response) override {
    absl::StatusOr<std::string> value = store_.TryGet(request->key());
    if (value.ok()) Fill(request->key(), *std::move(value), response->mutable_kv());
    return Now(context, value.status());
  }

  ServerUnaryReactor* IncrementKeyValue(CallbackServerContext* context,
                                        const pb::IncrementKeyValueRequest* request,
                                        pb::IncrementKeyValueResponse* response) override {
    absl::StatusOr<std::string> value = store_.Increment(request->key(), request->increment());
    if (value.ok()) Fill(request->key(), *std::move(value), response->mutable_kv());
    return Now(context, value.status());
  }

  ServerUnaryReactor* GetKeyValueDir(CallbackServerContext* context,
                                     const pb::GetKeyValueDirRequest* request,
                                     pb::GetKeyValueDirResponse* response) override {
    response->set_directory_key(request->directory_key());
    for (KvStore::Entry& entry : store_.List(request->directory_key())) {
      Fill(entry.first, std::move(entry.second), response->add_kv());
    }
    return Now(context, absl::OkStatus());
  }

  ServerUnaryReactor* DeleteKeyValue(CallbackServerContext* context,
                                     const pb::DeleteKeyValueRequest* request,
                                     pb::DeleteKeyValueResponse*) override {
    store_.Delete(request->key(), request->is_directory());
    return Now(context, absl::OkStatus());
  }

  ServerUnaryReactor* Barrier(CallbackServerContext*, const pb::BarrierRequest* request,
                              pb::BarrierResponse* response) override {
    auto* call = new HeldCall();
    const Barriers::Key key(request->barrier_id(), request->counter());
    const int task = request->source_task_id();
    response->set_counter(request->counter());
    const int64_t wait_ms = std::clamp<int64_t>(request->barrier_timeout_in_ms(), 0,
                                                limits::kBarrierWaitMsMax);
    const uint64_t ticket = barriers_.Arrive(
        key, task, {request->task_ids().begin(), request->task_ids().end()},
        absl::Milliseconds(wait_ms), [call](absl::Status status) { call->Answer(status); });
    if (ticket != 0) call->OnDrop([this, key, ticket] { return barriers_.Leave(key, ticket); });
    return call;
  }

  ServerUnaryReactor* CancelBarrier(CallbackServerContext* context,
                                    const pb::CancelBarrierRequest* request,
                                    pb::CancelBarrierResponse*) override {
    return Now(context, barriers_.Cancel({request->barrier_id(), request->counter()}));
  }

  // XLA's service makes this a barrier, so that all agree; here all ask the one who decides.
  ServerUnaryReactor* GetAliveTasks(CallbackServerContext* context,
                                    const pb::GetAliveTasksRequest* request,
                                    pb::GetAliveTasksResponse* response) override {
    const std::set<int> asked(request->task_ids().begin(), request->task_ids().end());
    for (const Task& task : tasks_.Snapshot().tasks) {
      if (!task.alive || !asked.contains(task.id)) continue;
      response->add_alive_task_ids(task.id);
      response->add_incarnations(task.incarnation);
    }
    return Now(context, absl::OkStatus());
  }

  ServerUnaryReactor* WatchTasks(CallbackServerContext*, const pb::WatchTasksRequest* request,
                                 pb::WatchTasksResponse* response) override {
    auto* call = new HeldCall();
    const uint64_t watch = tasks_.Watch(
        request->version_number(), [call, response](absl::StatusOr<TaskSnapshot> snapshot) {
          if (snapshot.ok()) FillTasks(*snapshot, response);
          call->Answer(snapshot.status());
        });
    if (watch != 0) call->OnDrop([this, watch] { return tasks_.CancelWatch(watch); });
    return call;
  }

 private:
  static ServerUnaryReactor* Now(CallbackServerContext* context, const absl::Status& status) {
    ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpc(status));
    return reactor;
  }

  // ABORTED when a node that is over would have to set the key, or to see it.
  absl::Status EndOfMeeting(const std::string& key) const {
    for (const int node : NodesMeetingAt(key)) {
      const absl::Status end = tasks_.EndOf(node);
      if (end.ok()) continue;
      return absl::AbortedError(
          absl::StrCat("nobody will set key ", key, ": node ", node, " is over: ", end.message()));
    }
    return absl::OkStatus();
  }

  static void FillTasks(const TaskSnapshot& snapshot, pb::WatchTasksResponse* response) {
    response->set_version_number(snapshot.version);
    for (const Task& task : snapshot.tasks) {
      pb::TaskInfo& info = *response->add_task_state();
      info.set_task_id(task.id);
      info.set_incarnation(task.incarnation);
      const bool left = task.end.ok() || absl::IsCancelled(task.end);
      info.set_state(task.alive ? pb::CONNECTED : left ? pb::DISCONNECTED : pb::ERROR);
      info.set_error_code(static_cast<int>(task.end.code()));
      info.set_error_message(std::string(task.end.message()));
    }
  }

  KvStore& store_;
  TaskTable& tasks_;
  Barriers& barriers_;
  const uint64_t incarnation_;
};

// XLA takes a service incarnation of 0 for "not known".
CoordinationService::CoordinationService(Timers& timers, Random& random)
    : barriers_(timers, tasks_),
      impl_(std::make_unique<Impl>(store_, tasks_, barriers_, random.Next() | 1)) {}

CoordinationService::~CoordinationService() = default;

grpc::Service* CoordinationService::service() { return impl_.get(); }

absl::Status CoordinationService::PublishTopology(const TopologyOptions& options) {
  ASSIGN_OR_RETURN(std::string topology, EncodeGlobalTopology(options));
  const std::string key = GlobalTopologyKey(options.shape.platform);
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(store_.Insert(key, std::move(topology), /*allow_overwrite=*/true));
  published_.insert(key);
  return absl::OkStatus();
}

void CoordinationService::Begin(int node) { tasks_.Begin(node); }

void CoordinationService::EndEpoch(const absl::Status& why) {
  const absl::Status aborted = absl::AbortedError(
      absl::StrCat("the membership changed: ", why.ok() ? "a new epoch" : why.message()));
  tasks_.EndAll(aborted);
  const int64_t waiting = store_.FailWaiters(aborted);
  barriers_.FailAll(aborted);
  absl::MutexLock lock(&mu_);
  const int64_t keys = store_.DeleteAllBut(published_);
  LOG(DEBUG) << "epoch over: " << waiting << " waiting calls failed, " << keys << " keys deleted";
}

void CoordinationService::Shutdown() {
  const absl::Status over = absl::CancelledError("the coordination service ended");
  store_.FailWaiters(over);
  barriers_.FailAll(over);
  tasks_.FailWatches(over);
}

}  // namespace causeway::coordination
