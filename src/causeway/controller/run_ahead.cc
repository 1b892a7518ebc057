// How far a session is ahead of the workers and of its own uploads, and what it may keep.
//
// Of the work that a session queues on a worker, one piece in limits::kWorkPerMark is a mark: the
// worker is asked when it ends. A session with limits::kMarksMax marks outstanding is not read from until
// half of them are reached. A worker's death reaches its marks too.
//
// Launches over several workers have one order for all sessions. A launch that had its place while
// its client still sends an argument would hold everybody up for as long as the client likes: it
// gets its place only when the bytes are here, and its session is not read from until then.
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/limits.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"

namespace causeway::controller {

bool Controller::MarkDue(Session& session, const DeviceList& list) {
  session.unmarked.resize(workers_.size(), 0);
  bool due = false;
  for (const DeviceList::Member& member : list.members) {
    due |= ++session.unmarked[member.worker.value()] >= limits::kWorkPerMark;
  }
  if (!due) return false;
  for (const DeviceList::Member& member : list.members) {
    session.unmarked[member.worker.value()] = 0;
  }
  ++session.marks_due;
  return true;
}

void Controller::MarkReached(SessionId id) {
  absl::StatusOr<Session*> session = FindSession(id);
  if (!session.ok()) return;
  --(*session)->marks_due;
  if ((*session)->resume != nullptr && (*session)->marks_due <= limits::kMarksMax / 2) {
    Defer(std::exchange((*session)->resume, nullptr));
  }
}

void Controller::MarkBuffer(Session& session, const BufferRef& buffer) {
  if (buffer == nullptr || !MarkDue(session, *buffer->list)) return;
  const RequestId request = NewRequest([this, id = session.id](PendingRequest&) {
    mu_.AssertHeld();
    MarkReached(id);
  });
  for (const DeviceList::Member& member : buffer->list->members) {
    if (Expect(request, member.worker)) {
      State(member.worker).link->Send(wire::EncodeAwaitReady(request, {buffer->id}));
    }
  }
  Seal(request);
}

bool Controller::MayGoOn(SessionId id, absl::AnyInvocable<void() &&>& resume) {
  Locked lock(this);
  absl::StatusOr<Session*> session = FindSession(id);
  if (!session.ok() || (*session)->marks_due < limits::kMarksMax) return true;
  (*session)->resume = std::move(resume);
  return false;
}

bool Controller::MayExecute(SessionId id, ExecutableHandle handle,
                            const std::vector<ArrayHandle>& args,
                            absl::AnyInvocable<void() &&> resume) {
  Locked lock(this);
  absl::StatusOr<Session*> session = FindSession(id);
  if (!session.ok()) return true;
  const auto executable = (*session)->executables.find(handle);
  if (executable == (*session)->executables.end()) return true;
  const BindingRef& binding = executable->second.binding;
  // Other launches wait on their workers and hold nobody up.
  if (binding == nullptr || !binding->several_workers() ||
      binding->program->request.kind != core::ProgramKind::kXla) {
    return true;
  }
  for (const ArrayHandle arg : args) {
    const auto array = (*session)->arrays.find(arg);
    if (array == (*session)->arrays.end()) continue;
    const core::GateRef gate = GateOf(*array->second);
    if (gate == nullptr || !gate->awaits_upload()) continue;
    gate->OnSettled([this, resume = std::move(resume)](const absl::Status&) mutable {
      mu_.AssertHeld();
      Defer(std::move(resume));
    });
    return false;
  }
  return true;
}

absl::StatusOr<Session*> Controller::FindSessionFor(SessionId id, size_t new_arrays) {
  ASSIGN_OR_RETURN(Session * session, FindSession(id));
  if (session->arrays.size() + new_arrays > static_cast<size_t>(limits::kSessionArraysMax)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "this session holds ", session->arrays.size(), " arrays of kSessionArraysMax = ",
        limits::kSessionArraysMax, "; delete some"));
  }
  return session;
}

}  // namespace causeway::controller
