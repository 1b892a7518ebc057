// Sessions: handle tables and what happens when a client goes.
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/limits.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"

namespace causeway::controller {

core::ClusterView Controller::Describe() {
  Locked lock(this);
  core::ClusterView view;
  view.platform = options_.shape.platform;
  for (const WorkerState& worker : workers_) {
    if (worker.hello.pid == 0) continue;
    if (view.platform_version.empty()) view.platform_version = worker.hello.runtime_version;
    if (view.memory_kinds.empty()) view.memory_kinds = worker.hello.memory_kinds;
  }
  if (view.memory_kinds.empty()) view.memory_kinds = {"device"};
  view.devices = topology_.devices();
  return view;
}

SessionId Controller::OpenSession(const std::string& peer) {
  Locked lock(this);
  const SessionId id(next_session_++);
  auto session = std::make_unique<Session>();
  session->id = id;
  session->peer = peer;
  session->opened = clock_.WallNow();
  sessions_.emplace(id, std::move(session));
  return id;
}

void Controller::CloseSession(SessionId id) {
  Locked lock(this);
  auto it = sessions_.find(id);
  if (it == sessions_.end()) return;
  std::unique_ptr<Session> session = std::move(it->second);
  sessions_.erase(it);
  if (session->resume != nullptr) Defer(std::move(session->resume));
  for (auto& [handle, execution] : session->executions) {
    if (execution->done != nullptr) {
      Defer([done = std::move(execution->done)]() mutable {
        std::move(done)(absl::CancelledError("the session was closed"));
      });
    }
  }
  for (const auto& [handle, executable] : session->executables) {
    if (executable.binding == nullptr) continue;  // it reads arrays
    if (executable.binding->program->request.kind != core::ProgramKind::kXla) {
      DropHostProgram(*executable.binding);
    }
    const ProgramRef& program = executable.binding->program;
    if (program->callbacks.has_value()) CallbacksGone(program);
  }
  // The tables drop their references here, under the lock; the buffers' workers hear of it.
}

uint64_t Controller::NewServerHandle(SessionId id) {
  Locked lock(this);
  absl::StatusOr<Session*> session = FindSession(id);
  return session.ok() ? (*session)->next_handle++ : 0;
}

absl::StatusOr<Session*> Controller::FindSession(SessionId id) {
  auto it = sessions_.find(id);
  if (it == sessions_.end()) {
    return absl::FailedPreconditionError(
        absl::StrCat("session ", id.value(), " is closed; connect again for a new one"));
  }
  return it->second.get();
}

absl::StatusOr<ArrayRef> Controller::FindArray(Session& session, ArrayHandle handle) {
  auto it = session.arrays.find(handle);
  if (it == session.arrays.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no array with handle ", handle.value(), " in this session"));
  }
  if (!it->second->error.ok()) return it->second->error;
  return it->second;
}

absl::StatusOr<ArrayRef> Controller::FindLiveArray(Session& session, ArrayHandle handle) {
  ASSIGN_OR_RETURN(ArrayRef array, FindArray(session, handle));
  if (!array->deleted()) return array;
  return absl::InvalidArgumentError(
      "Array has been deleted. It was deleted or donated to an earlier computation");
}

void Controller::BindError(Session& session, const std::vector<ArrayHandle>& handles,
                           const absl::Status& error) {
  for (ArrayHandle handle : handles) {
    if (session.arrays.size() >= static_cast<size_t>(limits::kSessionArraysMax)) return;
    session.arrays[handle] = ErrorArray(error);
  }
}

}  // namespace causeway::controller
