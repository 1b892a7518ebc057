// Execute: names the outputs, decides the order, tells every member once.
#include <algorithm>
#include <memory>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "causeway/base/check.h"
#include "causeway/base/limits.h"
#include "causeway/base/probes.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"

namespace causeway::controller {
namespace {

// A client that has waited after so many launches in a row will wait for the next one too.
constexpr int kAwaitedBefore = 2;

}  // namespace

absl::StatusOr<core::ExecuteResult> Controller::Execute(SessionId id,
                                                        const core::ExecuteRequest& request) {
  Locked lock(this);
  ASSIGN_OR_RETURN(Session * session, FindSessionFor(id, request.results.size()));
  core::ExecuteResult names;
  names.results = request.results;
  names.status = request.status;
  auto bind_error = [&](const absl::Status& error) {
    mu_.AssertHeld();
    BindError(*session, names.results, error);
    if (names.status.value() != 0 &&
        session->executions.size() < static_cast<size_t>(limits::kSessionStatusesMax)) {
      auto execution = std::make_shared<Execution>();
      execution->status = error;
      session->executions[names.status] = std::move(execution);
    }
  };
  auto it = session->executables.find(request.executable);
  if (it == session->executables.end()) {
    const absl::Status error = absl::InvalidArgumentError(absl::StrCat(
        "there is no executable with handle ", request.executable.value(), " in this session"));
    bind_error(error);
    return error;
  }
  const Executable& executable = it->second;
  const size_t num_outputs = executable.view->outputs.size();
  const bool client_names = !names.results.empty();
  if (names.results.empty()) {
    for (size_t i = 0; i < num_outputs; ++i) {
      names.results.push_back(ArrayHandle(session->next_handle++));
    }
  }
  if (request.want_status && names.status.value() == 0) {
    names.status = StatusHandle(session->next_handle++);
  }
  if (!request.want_status) names.status = StatusHandle(0);
  absl::Status status;
  if (names.results.size() != num_outputs) {
    status = absl::InvalidArgumentError(absl::StrCat(names.results.size(), " result handles for ",
                                                     num_outputs, " outputs"));
  } else if (session->executions.size() >= static_cast<size_t>(limits::kSessionStatusesMax)) {
    status = absl::ResourceExhaustedError(
        absl::StrCat("this session has not asked for the outcome of kSessionStatusesMax = ",
                     limits::kSessionStatusesMax, " executions; ask for some"));
  } else if (executable.fetch != nullptr) {
    status = FetchToFile(*session, request, *executable.fetch, names.status);
  } else if (executable.binding->program->reshard != nullptr) {
    status = LaunchReshard(*session, request, *executable.binding, &names);
  } else if (executable.binding->program->request.kind != core::ProgramKind::kXla) {
    status = LaunchHost(*session, request, *executable.binding, names);
  } else {
    status = Launch(*session, request, executable, names);
  }
  if (status.ok()) return names;
  bind_error(status);
  // A first reshard that fails cannot tell what its outputs would have looked like.
  if (executable.binding != nullptr && executable.binding->program->reshard != nullptr &&
      !client_names) {
    return status;
  }
  // What went wrong earlier or elsewhere shows when a result is read, as it does on local devices;
  // a mistake in this very call is told at once when the client waits for the reply.
  if (status.code() == absl::StatusCode::kInvalidArgument || client_names) {
    if (status.code() == absl::StatusCode::kDataLoss) return names;
    return status;
  }
  return names;
}

absl::Status Controller::Launch(Session& session, const core::ExecuteRequest& request,
                                const Executable& executable, const core::ExecuteResult& names) {
  Binding& binding = *executable.binding;
  const core::ProgramInfo& info = *binding.program->info;
  if (binding.parameters.has_value() && request.args.size() != binding.parameters->size()) {
    return absl::InvalidArgumentError(absl::StrCat(info.name, " takes ",
                                                   binding.parameters->size(), " arguments, but ",
                                                   request.args.size(), " were given"));
  }
  absl::InlinedVector<BufferRef, 16> args;
  args.reserve(request.args.size());
  std::vector<core::GateRef> gates;
  for (size_t i = 0; i < request.args.size(); ++i) {
    ASSIGN_OR_RETURN(ArrayRef array, FindLiveArray(session, request.args[i]));
    if (!SameDevices(array->list, binding.list)) {
      return absl::InvalidArgumentError(
          absl::StrCat("argument ", i, " of ", info.name, " lies on other devices (",
                       array->list->devices.size(), " of them) than the program runs on (",
                       binding.list->devices.size(), "); jax.device_put it there first"));
    }
    RETURN_IF_ERROR(CheckArgument(binding, i, array->spec));
    RETURN_IF_ERROR(CheckLoss(*array));
    ASSIGN_OR_RETURN(BufferRef whole, Whole(array));
    if (whole->gate != nullptr && whole->gate->failed()) return whole->gate->error();
    if (whole->gate != nullptr && !whole->gate->open() &&
        std::find(gates.begin(), gates.end(), whole->gate) == gates.end()) {
      gates.push_back(whole->gate);
    }
    args.push_back(std::move(whole));
  }
  for (const DeviceList::Member& member : binding.list->members) {
    if (!State(member.worker).alive) return LostError(member.worker);
  }

  // Donated inputs that must survive are copied first by the members.
  absl::InlinedVector<int, 4> protect;
  RETURN_IF_ERROR(MarkDonations(binding, request, args, &protect));
  if (PLANTED("controller.free_before_use")) {
    for (const BufferRef& arg : args) {
      if (arg->deleted()) FreeNow(arg);
    }
    FlushFrees();
  }

  session.awaited_in_a_row =
      std::exchange(session.awaited, false) ? session.awaited_in_a_row + 1 : 0;
  core::GateRef gate;
  core::GateRef told;  // opened by what the worker says of this launch
  LaunchSeq seq;
  if (binding.several_workers()) {
    gate = core::Gate::Create(1);
    for (const core::GateRef& input : gates) gate->After(input);
    seq = epochs_.Launched(binding.list->workers);
    gates_.push_back(gate);
    ++counters_.gang_launches;
  } else if (session.awaited_in_a_row >= kAwaitedBefore && gates.empty()) {
    // The worker says by itself when the launch has ended: the client's question needs none to it.
    gate = told = core::Gate::Create(1);
  } else {
    gate = core::Gate::Join(gates);
  }
  ++counters_.launches;

  absl::InlinedVector<BufferId, 16> arg_ids, output_ids;
  arg_ids.reserve(args.size());
  output_ids.reserve(binding.outputs.size());
  for (const BufferRef& arg : args) arg_ids.push_back(arg->id);
  for (size_t i = 0; i < binding.outputs.size(); ++i) {
    auto array = std::make_shared<Array>();
    array->spec = binding.outputs[i];
    array->list = binding.list;
    array->whole =
        NewBuffer(binding.list, array->spec.dtype, array->spec.sharding->memory_kind());
    array->whole->gate = gate;
    array->whole->ready_with_gate = binding.several_workers() || told != nullptr;
    array->whole->bytes = binding.output_bytes[i];
    live_bytes_ += array->whole->bytes;
    output_ids.push_back(array->whole->id);
    session.arrays[names.results[i]] = std::move(array);
  }

  const RequestId report = WatchExecution(session, names.status, *binding.list, gate, told);
  const wire::Encoded command =
      wire::EncodeLaunch({binding.id, epochs_.epoch(), seq, report, arg_ids, output_ids, protect});
  for (const DeviceList::Member& member : binding.list->members) {
    WorkerState& worker = State(member.worker);
    EnsureLoaded(worker, binding);
    if (report.value() != 0) Expect(report, worker.id);
    worker.link->Send(command);
  }
  if (report.value() != 0) Seal(report);
  return absl::OkStatus();
}

RequestId Controller::WatchExecution(Session& session, StatusHandle status, const DeviceList& list,
                                     const core::GateRef& gate, const core::GateRef& told) {
  const bool mark = MarkDue(session, list);
  auto ended = [this, mark, told, id = session.id](const absl::Status& status) {
    mu_.AssertHeld();
    if (mark) MarkReached(id);
    if (told == nullptr) return;
    status.ok() ? told->Release() : told->Fail(status);
  };
  if (status.value() == 0) {
    if (!mark && told == nullptr) return RequestId();
    return NewRequest(
        [ended = std::move(ended)](PendingRequest& reply) { ended(reply.status); });
  }
  auto execution = std::make_shared<Execution>();
  execution->gate = gate;
  execution->replies_due = 1;
  session.executions[status] = execution;
  return NewRequest([this, execution, ended = std::move(ended)](PendingRequest& reply) {
    mu_.AssertHeld();
    ended(reply.status);
    auto finish = [this, execution, status = reply.status](const absl::Status& cause) {
      mu_.AssertHeld();
      execution->status = !cause.ok() ? cause : status;
      execution->replies_due = 0;
      if (execution->done == nullptr) return;
      Defer([done = std::move(execution->done), result = execution->status]() mutable {
        if (result.ok()) {
          std::move(done)(core::DeviceTimes());
        } else {
          std::move(done)(result);
        }
      });
    };
    if (execution->gate == nullptr) {
      finish(absl::OkStatus());
    } else {
      execution->gate->OnSettled(std::move(finish));
    }
  });
}

void Controller::AwaitExecution(
    SessionId id, StatusHandle handle,
    absl::AnyInvocable<void(absl::StatusOr<core::DeviceTimes>) &&> done) {
  Locked lock(this);
  absl::StatusOr<Session*> session = FindSession(id);
  absl::Status status = session.status();
  if (status.ok()) {
    auto it = (*session)->executions.find(handle);
    if (it == (*session)->executions.end()) {
      status = absl::InvalidArgumentError(
          absl::StrCat("there is no execution with status handle ", handle.value()));
    } else {
      std::shared_ptr<Execution> execution = std::move(it->second);
      (*session)->executions.erase(it);
      if (execution->replies_due > 0) {
        execution->done = std::move(done);
        return;
      }
      status = execution->status;
    }
  }
  Defer([done = std::move(done), status]() mutable {
    if (status.ok()) {
      std::move(done)(core::DeviceTimes());
    } else {
      std::move(done)(status);
    }
  });
}

}  // namespace causeway::controller
