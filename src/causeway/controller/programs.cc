// Programs: compile once anywhere, bind to any devices, load lazily.
#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "causeway/base/limits.h"
#include "causeway/base/log.h"
#include "causeway/base/probes.h"
#include "causeway/base/status_macros.h"
#include "causeway/callbacks/programs.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"
#include "causeway/wire/canonical.h"
#include "causeway/wire/ifrt_sharding.h"

namespace causeway::controller {
namespace {

// How often a compile moves to another worker when the one that had it dies.
constexpr int kMaxCompileAttempts = 4;

// What is in the files may change with the version: then no older file is found.
constexpr int kDiskFormat = 2;

// Such programs name one client's functions by number: no other client can use them.
bool CallsItsClient(const core::CompileRequest& request) {
  return absl::StrContains(request.program, "_python_gpu_callback") ||
         absl::StrContains(request.program, "_python_cpu_callback");
}

std::string CacheKey(const core::CompileRequest& request) {
  return absl::StrCat(static_cast<int>(request.kind), ":", request.devices.size(), ":",
                      request.name, ":", request.options.size(), ":",
                      wire::CanonicalMaps(request.options), request.program);
}

}  // namespace

void Controller::Compile(
    SessionId id, core::CompileRequest request,
    absl::AnyInvocable<void(absl::StatusOr<std::shared_ptr<const core::ExecutableView>>) &&>
        done) {
  Locked lock(this);
  auto shared_done = std::make_shared<decltype(done)>(std::move(done));
  auto fail = [&](const absl::Status& status) {
    mu_.AssertHeld();
    Defer([shared_done, status]() mutable { std::move(*shared_done)(status); });
  };
  if (request.kind == core::ProgramKind::kFetch) {
    auto view = MakeFetchProgram(id, std::move(request));
    Defer([shared_done, view = std::move(view)]() mutable {
      std::move(*shared_done)(std::move(view));
    });
    return;
  }
  if (request.kind != core::ProgramKind::kXla) {
    auto view = MakeHostProgram(id, std::move(request));
    Defer([shared_done, view = std::move(view)]() mutable {
      std::move(*shared_done)(std::move(view));
    });
    return;
  }
  absl::StatusOr<DeviceListRef> list = Intern(request.devices);
  if (!list.ok()) return fail(list.status());
  const std::string key = CacheKey(request);
  const std::string slot_key =
      PLANTED("controller.key_by_session") ? absl::StrCat(key, id.value()) : key;
  if (!programs_.contains(slot_key)) MakeRoomForProgram();
  ProgramRef& slot = programs_[slot_key];
  const bool fresh = slot == nullptr;
  if (fresh) {
    slot = std::make_shared<Program>();
    slot->id = ProgramId(next_id_++);
    slot->num_devices = static_cast<int>(request.devices.size());
    slot->request = std::move(request);
    slot->request.devices.clear();
    slot->callbacks = callbacks::FindGroup(slot->request.program);
  } else {
    ++counters_.compile_hits;
  }
  slot->last_use = ++program_uses_;
  const ProgramRef program = slot;
  auto finish = [this, id, program, list = *list, shared_done](absl::Status status) {
    mu_.AssertHeld();
    auto make = [&]() -> absl::StatusOr<std::shared_ptr<const core::ExecutableView>> {
      mu_.AssertHeld();
      RETURN_IF_ERROR(status);
      ASSIGN_OR_RETURN(Session * session, FindSession(id));
      if (session->executables.size() >= static_cast<size_t>(limits::kSessionExecutablesMax)) {
        return absl::ResourceExhaustedError(absl::StrCat(
            "this session holds kSessionExecutablesMax = ", limits::kSessionExecutablesMax,
            " executables; let some go (jax.clear_caches())"));
      }
      ASSIGN_OR_RETURN(BindingRef binding, Bind(program, list));
      auto view = std::make_shared<core::ExecutableView>();
      view->handle = ExecutableHandle(session->next_handle++);
      view->info = program->info;
      view->devices = list->devices;
      view->outputs = binding->outputs;
      session->executables[view->handle] = Executable{view, binding, nullptr};
      // Members load it now, so that the first launch does not wait for that.
      for (const DeviceList::Member& member : list->members) {
        WorkerState& worker = State(member.worker);
        if (worker.alive) EnsureLoaded(worker, *binding);
      }
      return std::shared_ptr<const core::ExecutableView>(view);
    };
    absl::StatusOr<std::shared_ptr<const core::ExecutableView>> view = make();
    if (!view.ok() && program->callbacks.has_value()) CallbacksGone(program);
    Defer([shared_done, view = std::move(view)]() mutable {
      std::move(*shared_done)(std::move(view));
    });
  };
  if (program->compiled) {
    finish(absl::OkStatus());
    return;
  }
  program->waiters.push_back(std::move(finish));
  if (fresh) FindOrCompile(program, key);
}

std::string Controller::CompileEnvironment() const {
  std::set<std::string> kinds;
  for (const WorkerState& worker : workers_) {
    const core::WorkerHello& hello = worker.hello;
    if (hello.pid == 0) continue;  // it has never been here
    kinds.insert(absl::StrCat(hello.platform, "|", hello.device_kind, "|", hello.runtime_version,
                              "|", hello.compile_target));
  }
  // Workers compile otherwise where a host has no peers.
  return absl::StrCat(kDiskFormat, topology_.num_workers() == 1 ? "|alone|" : "|",
                      options_.shape.hosts_per_slice, "|", options_.shape.devices_per_host, "|",
                      absl::StrJoin(kinds, "||"), "|||");
}

void Controller::FindOrCompile(const ProgramRef& program, const std::string& key) {
  if (options_.compile_cache == nullptr || CallsItsClient(program->request)) {
    StartCompile(program);
    return;
  }
  program->disk_key = absl::StrCat(CompileEnvironment(), key);
  auto found = [this, mark = std::weak_ptr<bool>(alive_mark_),
                program](std::optional<std::string> contents) {
    if (mark.expired()) return;
    Locked lock(this);
    absl::StatusOr<wire::CompileResult> result = absl::NotFoundError("not on disk");
    if (contents.has_value()) result = wire::ParseCompileResult(*contents);
    if (!result.ok()) {
      StartCompile(program);
      return;
    }
    program->from_disk = true;
    Compiled(program, std::move(result));
  };
  // The answer takes the lock.
  Defer([this, key = program->disk_key, found = std::move(found)]() mutable {
    options_.compile_cache->Find(std::move(key), std::move(found));
  });
}

void Controller::CallbacksGone(const ProgramRef& program) {
  // Their group's number is in the program, so no client compiles the same one again.
  for (const auto& [id, session] : sessions_) {
    for (const auto& [handle, executable] : session->executables) {
      if (executable.binding != nullptr && executable.binding->program == program) return;
    }
  }
  ForgetPrograms([&program](const Program& other) { return other.id == program->id; });
  const callbacks::ProgramGroup told = *std::exchange(program->callbacks, std::nullopt);
  if (options_.callbacks_gone == nullptr) return;
  Defer([gone = options_.callbacks_gone, group = told] {
    gone(group.token, group.group);
  });
}

void Controller::StartCompile(const ProgramRef& program) {
  // Any live worker can compile for any devices; take turns. One that is still joining does it when
  // it has joined.
  const size_t n = workers_.size();
  WorkerState* chosen = nullptr;
  for (size_t k = 0; k < n; ++k) {
    WorkerState& candidate = workers_[(program->id.value() + program->attempts + k) % n];
    if (!candidate.alive || (chosen != nullptr && !epochs_.in(candidate.id))) continue;
    chosen = &candidate;
    if (epochs_.in(candidate.id)) break;
  }
  ++program->attempts;
  const RequestId request = NewRequest([this, program](PendingRequest& reply) {
    mu_.AssertHeld();
    FinishCompile(program, reply);
  });
  if (chosen == nullptr) {
    requests_[request].status =
        absl::UnavailableError("no worker is alive to compile on; restart one");
  } else if (Expect(request, chosen->id)) {
    ++counters_.compiles;
    chosen->link->Send(wire::EncodeCompile(request, program->id, program->request.program,
                                           program->request.options, program->num_devices,
                                           static_cast<int>(program->request.kind)));
  }
  Seal(request);
}

void Controller::FinishCompile(const ProgramRef& program, PendingRequest& reply) {
  absl::Status status = reply.status;
  if (status.code() == absl::StatusCode::kDataLoss && program->attempts < kMaxCompileAttempts) {
    REACHED("controller.compile_moved");
    StartCompile(program);
    return;
  }
  if (status.ok() && !reply.compile.has_value()) {
    status = absl::InternalError("the worker's answer to a compile has no result");
  }
  if (!status.ok()) {
    Compiled(program, status);
    return;
  }
  // Without a compiled form there is nothing to save a compile with.
  if (!program->disk_key.empty() && !reply.compile->serialized.empty()) {
    Defer([this, key = program->disk_key, bytes = std::move(reply.compile_bytes)]() mutable {
      options_.compile_cache->Store(std::move(key), std::move(bytes));
    });
  }
  Compiled(program, *std::move(reply.compile));
}

void Controller::Compiled(const ProgramRef& program, absl::StatusOr<wire::CompileResult> compiled) {
  absl::Status status = compiled.status();
  if (status.ok()) {
    wire::CompileResult& result = *compiled;
    auto info = std::make_shared<core::ProgramInfo>();
    info->name = std::move(result.name);
    info->fingerprint = std::move(result.fingerprint);
    info->parameters = std::move(result.parameters);
    info->output_dtypes = std::move(result.output_dtypes);
    info->output_shapes = std::move(result.output_shapes);
    info->parameter_shardings = std::move(result.parameter_shardings);
    info->output_shardings = std::move(result.output_shardings);
    info->parameter_layouts = std::move(result.parameter_layouts);
    info->output_layouts = std::move(result.output_layouts);
    info->output_memory_kinds = std::move(result.output_memory_kinds);
    info->donated_inputs = std::move(result.donated_inputs);
    std::sort(info->donated_inputs.begin(), info->donated_inputs.end());
    info->memory_stats = std::move(result.memory_stats);
    info->generated_code_bytes = result.generated_code_bytes;
    program->info = std::move(info);
    program->serialized = std::move(result.serialized);
    program->compiled = true;
  } else {
    // XLA's own codes are kept but for those that clients take for a lost slice.
    if (status.code() == absl::StatusCode::kNotFound ||
        status.code() == absl::StatusCode::kDeadlineExceeded ||
        status.code() == absl::StatusCode::kInternal) {
      status = absl::InvalidArgumentError(
          absl::StrCat("the program does not compile: ", status.message()));
    }
    // A failure is not cached: the cause may pass.
    for (auto it = programs_.begin(); it != programs_.end(); ++it) {
      if (it->second == program) {
        programs_.erase(it);
        break;
      }
    }
  }
  auto waiters = std::move(program->waiters);
  program->waiters.clear();
  for (auto& waiter : waiters) waiter(status);
}

absl::StatusOr<BindingRef> Controller::Bind(const ProgramRef& program, const DeviceListRef& list) {
  BindingRef& slot = bindings_[{program->id, list->id}];
  if (slot != nullptr) return slot;
  auto binding = std::make_shared<Binding>();
  binding->id = BindingId(next_id_++);
  binding->program = program;
  binding->list = list;
  const core::ProgramInfo& info = *program->info;
  RETURN_IF_ERROR(BindParameters(*binding));
  for (size_t i = 0; i < info.output_dtypes.size(); ++i) {
    core::ArraySpec spec;
    spec.dtype = info.output_dtypes[i];
    spec.shape = info.output_shapes[i];
    const std::string memory_kind =
        i < info.output_memory_kinds.size() ? info.output_memory_kinds[i] : "device";
    if (list->devices.size() == 1) {
      spec.sharding = model::Sharding::SingleDevice(list->devices[0], memory_kind);
    } else {
      model::OpSharding op;  // replicated
      if (info.output_shardings.has_value() && i < info.output_shardings->size()) {
        ASSIGN_OR_RETURN(op, wire::ParseOpSharding((*info.output_shardings)[i]));
      }
      ASSIGN_OR_RETURN(spec.sharding,
                       model::Sharding::Hlo(list->devices, memory_kind, std::move(op)));
    }
    ASSIGN_OR_RETURN(model::Shape shard, spec.sharding->ShardShape(spec.shape, 0));
    const int64_t width = std::max<int64_t>(0, model::HostByteWidth(spec.dtype));
    binding->output_bytes.push_back(model::NumElements(shard) * width *
                                    static_cast<int64_t>(list->devices.size()));
    binding->outputs.push_back(std::move(spec));
  }
  slot = binding;
  return binding;
}

void Controller::LoadProgramOn(WorkerState& worker, const Program& program) {
  if (!worker.programs.insert(program.id).second) return;
  ++counters_.program_loads;
  wire::LoadProgram load;
  load.program = program.id;
  load.serialized = program.serialized;
  if (program.serialized.empty() || program.from_disk) load.code = program.request.program;
  load.options = program.request.options;
  load.num_devices = program.num_devices;
  load.num_outputs = static_cast<int>(program.info->output_dtypes.size());
  load.kind = static_cast<int>(program.request.kind);
  load.name = program.info->name;
  worker.link->Send(wire::EncodeLoadProgram(load));
}

void Controller::EnsureLoaded(WorkerState& worker, const Binding& binding) {
  TellNodes(worker);
  if (!worker.bindings.insert(binding.id).second) return;
  LoadProgramOn(worker, *binding.program);
  const core::ProgramInfo& info = *binding.program->info;
  if (binding.program->request.kind != core::ProgramKind::kXla) {
    worker.link->Send(wire::EncodeHostBind(binding.id, binding.program->id,
                                           binding.list->devices, binding.host_outputs,
                                           binding.session));
    return;
  }
  worker.link->Send(wire::EncodeBind(binding.id, binding.program->id, binding.list->devices,
                                     info.output_memory_kinds, info.output_dtypes,
                                     binding.program->callbacks.has_value()));
}

absl::StatusOr<std::shared_ptr<const core::ExecutableView>> Controller::GetExecutable(
    SessionId id, ExecutableHandle handle) {
  Locked lock(this);
  ASSIGN_OR_RETURN(Session * session, FindSession(id));
  auto it = session->executables.find(handle);
  if (it == session->executables.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no executable with handle ", handle.value(), " in this session"));
  }
  return it->second.view;
}

absl::Status Controller::DestructExecutable(SessionId id, ExecutableHandle handle) {
  Locked lock(this);
  ASSIGN_OR_RETURN(Session * session, FindSession(id));
  const auto it = session->executables.find(handle);
  if (it == session->executables.end()) {
    return absl::NotFoundError(
        absl::StrCat("there is no executable with handle ", handle.value(), " in this session"));
  }
  const BindingRef binding = it->second.binding;
  session->executables.erase(it);
  if (binding == nullptr) return absl::OkStatus();  // it read arrays
  if (binding->program->request.kind != core::ProgramKind::kXla) DropHostProgram(*binding);
  if (binding->program->callbacks.has_value()) CallbacksGone(binding->program);
  return absl::OkStatus();
}

void Controller::Introspect(SessionId id, ExecutableHandle handle, const std::string& what,
                            absl::AnyInvocable<void(PendingRequest&)> done) {
  Locked lock(this);
  const RequestId request = NewRequest(std::move(done));
  auto ask = [&]() -> absl::Status {
    mu_.AssertHeld();
    ASSIGN_OR_RETURN(Session * session, FindSession(id));
    auto it = session->executables.find(handle);
    if (it == session->executables.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("there is no executable with handle ", handle.value(), " in this session"));
    }
    if (it->second.binding == nullptr) {
      return absl::UnimplementedError("a program that reads arrays has no text and no cost");
    }
    const Program& program = *it->second.binding->program;
    if (program.request.kind != core::ProgramKind::kXla) {
      return absl::FailedPreconditionError(
          absl::StrCat(program.info->name, " is not compiled; XLA programs have a text and costs"));
    }
    for (WorkerState& worker : workers_) {
      if (!worker.alive) continue;
      LoadProgramOn(worker, program);
      Expect(request, worker.id);
      worker.link->Send(wire::EncodeIntrospect(request, program.id, what));
      return absl::OkStatus();
    }
    return absl::UnavailableError("no worker is alive to ask; restart one");
  };
  const absl::Status status = ask();
  if (!status.ok()) requests_[request].status = status;
  Seal(request);
}

void Controller::GetProgramText(SessionId id, ExecutableHandle handle,
                                absl::AnyInvocable<void(absl::StatusOr<std::string>) &&> done) {
  Introspect(id, handle, "text", [this, done = std::move(done)](PendingRequest& reply) mutable {
    mu_.AssertHeld();
    absl::StatusOr<std::string> text = std::move(reply.text);
    if (!reply.status.ok()) text = reply.status;
    Defer([done = std::move(done), text = std::move(text)]() mutable {
      std::move(done)(std::move(text));
    });
  });
}

void Controller::GetCostAnalysis(
    SessionId id, ExecutableHandle handle,
    absl::AnyInvocable<void(absl::StatusOr<std::map<std::string, double>>) &&> done) {
  Introspect(id, handle, "cost", [this, done = std::move(done)](PendingRequest& reply) mutable {
    mu_.AssertHeld();
    absl::StatusOr<std::map<std::string, double>> cost = std::move(reply.numbers);
    if (!reply.status.ok()) cost = reply.status;
    Defer([done = std::move(done), cost = std::move(cost)]() mutable {
      std::move(done)(std::move(cost));
    });
  });
}

}  // namespace causeway::controller
