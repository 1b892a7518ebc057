// Reading arrays into a file that the client has made and will map: the head moves no byte.
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"
#include "causeway/model/host_copy.h"

namespace causeway::controller {

absl::StatusOr<std::shared_ptr<const core::ExecutableView>> Controller::MakeFetchProgram(
    SessionId id, core::CompileRequest request) {
  ASSIGN_OR_RETURN(Session * session, FindSession(id));
  ASSIGN_OR_RETURN(DeviceListRef list, Intern(request.devices));
  auto info = std::make_shared<core::ProgramInfo>();
  info->name = "fetch";
  auto view = std::make_shared<core::ExecutableView>();
  view->handle = ExecutableHandle(session->next_handle++);
  view->info = std::move(info);
  view->devices = list->devices;
  auto fetch = std::make_shared<FetchProgram>();
  fetch->path = std::move(request.program);
  session->executables[view->handle] = Executable{view, nullptr, std::move(fetch)};
  return std::shared_ptr<const core::ExecutableView>(std::move(view));
}

absl::Status Controller::FetchToFile(Session& session, const core::ExecuteRequest& request,
                                     FetchProgram& program, StatusHandle status) {
  // The client counts as well, so every execution does, whatever becomes of it.
  const std::string path = absl::StrCat(program.path, ++program.executions);
  if (status.value() == 0) {
    return absl::InvalidArgumentError("a program that reads arrays must be asked for its status");
  }
  absl::flat_hash_map<WorkerId, std::vector<wire::FilePart>> parts_of;
  std::vector<core::GateRef> gates;
  int64_t offset = 0;
  for (ArrayHandle handle : request.args) {
    ASSIGN_OR_RETURN(ArrayRef array, FindLiveArray(session, handle));
    const int64_t element_bytes = model::HostByteWidth(array->spec.dtype);
    if (element_bytes < 0) {
      return absl::UnimplementedError(absl::StrCat(
          "arrays of ", model::DTypeName(array->spec.dtype), " cannot be read as bytes"));
    }
    ASSIGN_OR_RETURN(std::vector<Part> parts, PartsOf(*array));
    for (Part& part : parts) {
      const WorkerId worker = topology_.WorkerOf(part.shard.device);
      if (options_.memory.empty() || State(worker).hello.memory != options_.memory) {
        return absl::FailedPreconditionError(
            absl::StrCat("worker ", worker.value(), " on ", State(worker).hello.host,
                         " shares no memory with clients of the head's machine; read the array "
                         "over the connection"));
      }
      gates.push_back(part.shard.buffer->gate);
      parts_of[worker].push_back({part.shard.buffer->id, part.shard.device, offset,
                                  array->spec.shape, std::move(part.box.start)});
    }
    const int64_t bytes = model::NumElements(array->spec.shape) * element_bytes;
    counters_.download_bytes += bytes;
    offset += (bytes + core::kFetchAlignment - 1) / core::kFetchAlignment * core::kFetchAlignment;
  }
  ++counters_.fetches;
  // No list: the client waits for a read, so it never runs ahead with one.
  const RequestId report =
      WatchExecution(session, status, DeviceList(), core::Gate::Join(gates));
  for (const auto& [worker, parts] : parts_of) {
    if (Expect(report, worker)) {
      State(worker).link->Send(wire::EncodeFetchFile(report, path, parts));
    }
  }
  Seal(report);
  return absl::OkStatus();
}

}  // namespace causeway::controller
