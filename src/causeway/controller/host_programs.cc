// Programs that workers run in host memory: users' Python, reading and writing files, profiles.
//
// Nothing is compiled, so nothing is cached: what runs may have a state of its own, which begins with
// the executable and ends with it. They take no part in the order of gang launches.
#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"

namespace causeway::controller {
namespace {

bool HasMember(const DeviceList& list, WorkerId worker) {
  return std::any_of(list.members.begin(), list.members.end(),
                     [worker](const DeviceList::Member& m) { return m.worker == worker; });
}

// The same devices, in whatever order.
bool SameDeviceSet(const DeviceList& a, const DeviceList& b) {
  std::vector<DeviceId> x = a.devices, y = b.devices;
  std::sort(x.begin(), x.end());
  std::sort(y.begin(), y.end());
  return x == y;
}

}  // namespace

absl::Status Controller::PlanPlugin(Program& program, Binding& binding,
                                    std::vector<DeviceId>* devices) {
  ASSIGN_OR_RETURN(wire::PluginProgram plugin, wire::ParsePluginRequest(program.request.program));
  if (auto* reshard = std::get_if<wire::ReshardProgram>(&plugin)) {
    program.request.name = "reshard";
    *devices = reshard->inputs[0]->devices();
    for (const model::ShardingRef& sharding : reshard->outputs) {
      binding.outputs.push_back({.sharding = sharding});
    }
    program.reshard = std::make_shared<const wire::ReshardProgram>(std::move(*reshard));
    return absl::OkStatus();
  }
  if (const auto* files = std::get_if<wire::FileProgram>(&plugin)) {
    program.request.name = files->write ? "write_arrays" : "read_arrays";
    *devices = files->items[0].sharding->devices();
    for (const wire::FileProgram::Item& item : files->items) {
      if (files->write) continue;
      binding.outputs.push_back(
          {.dtype = item.dtype, .shape = item.shape, .sharding = item.sharding});
    }
    ASSIGN_OR_RETURN(program.request.program, wire::EncodeFilePlan(*files));
    return absl::OkStatus();
  }
  const auto& profile = std::get<wire::ProfileProgram>(plugin);
  program.request.name = "profile";
  // One device of each worker that is to take part; the first worker's is the client's default.
  devices->clear();
  const int hosts = std::min(profile.max_hosts, topology_.shape().num_workers());
  for (int w = 0; w < hosts; ++w) {
    devices->push_back(DeviceId(w * topology_.shape().devices_per_host));
  }
  if (profile.has_output) {
    binding.outputs.push_back({.dtype = model::DType::kString,
                               .shape = {1},
                               .sharding = model::Sharding::SingleDevice(devices->front(), "")});
  }
  program.request.program = wire::EncodeProfilePlan(profile);
  return absl::OkStatus();
}

absl::Status Controller::LaunchReshard(Session& session, const core::ExecuteRequest& request,
                                       const Binding& binding, core::ExecuteResult* names) {
  const wire::ReshardProgram& reshard = *binding.program->reshard;
  if (request.args.size() != reshard.outputs.size()) {
    return absl::InvalidArgumentError(absl::StrCat("a reshard of ", reshard.outputs.size(),
                                                   " arrays got ", request.args.size()));
  }
  absl::Status first;
  for (size_t i = 0; i < request.args.size(); ++i) {
    absl::StatusOr<ArrayRef> array = FindArray(session, request.args[i]);
    if (!array.ok()) {
      first.Update(array.status());
      session.arrays[names->results[i]] = ErrorArray(array.status());
      continue;
    }
    core::ArraySpec to{.dtype = (*array)->spec.dtype,
                       .shape = (*array)->spec.shape,
                       .sharding = reshard.outputs[i]};
    first.Update(ReshardInto(session, request.args[i], to,
                             reshard.donate ? core::CopySemantics::kDonateInput
                                            : core::CopySemantics::kAlwaysCopy,
                             names->results[i]));
    names->outputs.push_back(std::move(to));
  }
  if (first.ok() && names->status.value() != 0) {
    session.executions[names->status] = std::make_shared<Execution>();
  }
  return first;
}

absl::StatusOr<std::shared_ptr<const core::ExecutableView>> Controller::MakeHostProgram(
    SessionId id, core::CompileRequest request) {
  ASSIGN_OR_RETURN(Session * session, FindSession(id));
  auto program = std::make_shared<Program>();
  program->id = ProgramId(next_id_++);
  auto binding = std::make_shared<Binding>();
  binding->id = BindingId(next_id_++);
  binding->session = id;
  binding->outputs = request.output_specs;
  std::vector<DeviceId> devices = request.devices;
  auto info = std::make_shared<core::ProgramInfo>();
  info->name = request.name;
  info->parameter_layouts = absl::UnimplementedError("this program is not compiled");
  info->output_layouts = info->parameter_layouts;
  info->memory_stats = absl::UnimplementedError("this program is not compiled");
  program->request = std::move(request);
  if (program->request.kind == core::ProgramKind::kPlugin) {
    RETURN_IF_ERROR(PlanPlugin(*program, *binding, &devices));
    info->name = program->request.name;
    const int donated = program->reshard != nullptr && program->reshard->donate
                            ? static_cast<int>(program->reshard->inputs.size())
                            : 0;
    for (int i = 0; i < donated; ++i) info->donated_inputs.push_back(i);
  }
  ASSIGN_OR_RETURN(binding->list, Intern(devices));
  program->num_devices = static_cast<int>(devices.size());
  program->compiled = true;
  for (const core::ArraySpec& spec : binding->outputs) {
    if (program->reshard != nullptr) break;  // known once the arguments are
    info->output_dtypes.push_back(spec.dtype);
    info->output_shapes.push_back(spec.shape);
    info->output_memory_kinds.push_back(spec.sharding->memory_kind());
    ASSIGN_OR_RETURN(DeviceListRef list, Intern(spec.sharding->devices()));
    wire::HostOutput output{spec.dtype, spec.sharding->memory_kind(), {}};
    for (size_t i = 0; i < list->devices.size(); ++i) {
      if (!HasMember(*binding->list, topology_.WorkerOf(list->devices[i]))) {
        return absl::InvalidArgumentError(absl::StrCat(
            "an output of ", info->name, " is to lie on device ", list->devices[i].value(),
            ", whose worker does not take part; specialize it with devices there"));
      }
      ASSIGN_OR_RETURN(model::Shape dims,
                       spec.sharding->ShardShape(spec.shape, static_cast<int>(i)));
      output.shards.emplace_back(list->devices[i], std::move(dims));
    }
    binding->host_outputs.push_back(std::move(output));
  }
  program->info = info;
  binding->program = program;
  auto view = std::make_shared<core::ExecutableView>();
  view->handle = ExecutableHandle(session->next_handle++);
  view->info = std::move(info);
  view->devices = devices;
  view->outputs = binding->outputs;
  session->executables[view->handle] = Executable{view, binding};
  if (program->reshard == nullptr) {
    for (const DeviceList::Member& member : binding->list->members) {
      WorkerState& worker = State(member.worker);
      if (worker.alive) EnsureLoaded(worker, *binding);
    }
  }
  return std::shared_ptr<const core::ExecutableView>(view);
}

void Controller::DropHostProgram(const Binding& binding) {
  for (const DeviceList::Member& member : binding.list->members) {
    WorkerState& worker = State(member.worker);
    if (worker.bindings.erase(binding.id) > 0 && worker.alive) {
      worker.link->Send(wire::EncodeUnbind(binding.id));
    }
    if (worker.programs.erase(binding.program->id) > 0 && worker.alive) {
      worker.link->Send(wire::EncodeDropProgram(binding.program->id));
    }
  }
}

absl::Status Controller::LaunchHost(Session& session, const core::ExecuteRequest& request,
                                    const Binding& binding, const core::ExecuteResult& names) {
  const std::string& name = binding.program->info->name;
  std::vector<BufferId> args, outputs;
  std::vector<core::GateRef> gates;
  for (size_t i = 0; i < request.args.size(); ++i) {
    ASSIGN_OR_RETURN(ArrayRef array, FindLiveArray(session, request.args[i]));
    if (!SameDeviceSet(*array->list, *binding.list)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "argument ", i, " of ", name, " lies on other devices than the program runs on; "
          "jax.device_put it there first"));
    }
    RETURN_IF_ERROR(CheckLoss(*array));
    ASSIGN_OR_RETURN(BufferRef whole, Whole(array));
    if (whole->gate != nullptr && whole->gate->failed()) return whole->gate->error();
    gates.push_back(whole->gate);
    args.push_back(whole->id);
  }
  for (const DeviceList::Member& member : binding.list->members) {
    if (!State(member.worker).alive) return LostError(member.worker);
  }
  const core::GateRef gate = core::Gate::Join(gates);
  ++counters_.launches;
  for (size_t i = 0; i < binding.outputs.size(); ++i) {
    auto array = std::make_shared<Array>();
    array->spec = binding.outputs[i];
    ASSIGN_OR_RETURN(array->list, Intern(array->spec.sharding->devices()));
    array->whole =
        NewBuffer(array->list, array->spec.dtype, array->spec.sharding->memory_kind());
    array->whole->gate = gate;
    const int64_t width = std::max<int64_t>(0, model::HostByteWidth(array->spec.dtype));
    for (const auto& [device, dims] : binding.host_outputs[i].shards) {
      array->whole->bytes += model::NumElements(dims) * width;
    }
    live_bytes_ += array->whole->bytes;
    outputs.push_back(array->whole->id);
    session.arrays[names.results[i]] = std::move(array);
  }
  const RequestId report = WatchExecution(session, names.status, *binding.list, gate);
  const wire::Encoded command = wire::EncodeLaunch(
      {binding.id, epochs_.epoch(), LaunchSeq(), report, args, outputs, {}, request.stream});
  for (const DeviceList::Member& member : binding.list->members) {
    WorkerState& worker = State(member.worker);
    EnsureLoaded(worker, binding);
    if (report.value() != 0) Expect(report, worker.id);
    worker.link->Send(command);
  }
  if (report.value() != 0) Seal(report);
  return absl::OkStatus();
}

}  // namespace causeway::controller
