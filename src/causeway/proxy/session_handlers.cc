// From a request's kind to its handler.
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "causeway/proxy/handlers.h"
#include "causeway/proxy/session.h"

namespace causeway::proxy {
namespace {

std::string KindName(const ifrt::IfrtRequest& request) {
  const auto* field =
      ifrt::IfrtRequest::descriptor()->FindFieldByNumber(static_cast<int>(request.request_case()));
  return field == nullptr ? std::string("unknown") : field->name();
}

void Refuse(Call call, const ifrt::IfrtRequest& request, const char* what_instead) {
  call.Fail(absl::UnimplementedError(
      absl::StrCat(KindName(request), " is not supported by this server; ", what_instead)));
}

}  // namespace

void Session::Dispatch(Call call, const ifrt::IfrtRequest& request) {
  using R = ifrt::IfrtRequest;
  if (!initialized && request.request_case() != R::kInitRequest) {
    return call.Fail(absl::FailedPreconditionError(
        absl::StrCat(KindName(request), " came before the session's init_request; send that "
                     "first")));
  }
  switch (request.request_case()) {
    case R::kLoadedExecutableExecuteRequest:
      return HandleExecute(std::move(call), request.loaded_executable_execute_request());
    case R::kDestructArrayRequest:
      return HandleDestructArray(std::move(call), request.destruct_array_request());
    case R::kCheckValueReadyRequest:
      return HandleCheckValueReady(std::move(call), request.check_value_ready_request());
    case R::kFullyReplicatedShardRequest:
      return HandleFullyReplicatedShard(std::move(call), request.fully_replicated_shard_request());
    case R::kCopyToHostBufferRequest:
      return HandleCopyToHostBuffer(std::move(call), request.copy_to_host_buffer_request());
    case R::kMakeArraysFromHostBufferShardsRequest:
      return HandleMakeArraysFromShards(std::move(call),
                                        request.make_arrays_from_host_buffer_shards_request());
    case R::kMakeArrayFromHostBufferRequest:
      return HandleMakeArray(std::move(call), request.make_array_from_host_buffer_request());
    case R::kInitRequest:
      return HandleInit(std::move(call));
    case R::kCheckFutureRequest:
      return HandleCheckFuture(std::move(call), request.check_future_request());
    case R::kMakeErrorArraysRequest:
      return HandleMakeErrorArrays(std::move(call), request.make_error_arrays_request());
    case R::kAssembleArrayFromSingleDeviceArraysRequest:
      return HandleAssemble(std::move(call),
                            request.assemble_array_from_single_device_arrays_request());
    case R::kDisassembleIntoSingleDeviceArraysRequest:
      return HandleDisassemble(std::move(call),
                               request.disassemble_into_single_device_arrays_request());
    case R::kRemapArraysRequest:
      return HandleRemapArrays(std::move(call), request.remap_arrays_request());
    case R::kReshardArraysRequest:
      return HandleReshardArrays(std::move(call), request.reshard_arrays_request());
    case R::kBitcastArraysRequest:
      return HandleBitcastArrays(std::move(call), request.bitcast_arrays_request());
    case R::kCopyArraysRequest:
      return HandleCopyArrays(std::move(call), request.copy_arrays_request());
    case R::kDeleteArrayRequest:
      return HandleDeleteArray(std::move(call), request.delete_array_request());
    case R::kIsArrayDeletedRequest:
      return HandleIsArrayDeleted(std::move(call), request.is_array_deleted_request());
    case R::kCompileRequest:
      return HandleCompile(std::move(call), request.compile_request());
    case R::kLoadedExecutableMetadataRequest:
      return HandleMetadata(std::move(call), request.loaded_executable_metadata_request());
    case R::kLoadedExecutableFetchExecuteResultRequest:
      return HandleFetchExecuteResult(std::move(call),
                                      request.loaded_executable_fetch_execute_result_request());
    case R::kLoadedExecutableCostAnalysisRequest:
      return HandleCostAnalysis(std::move(call),
                                request.loaded_executable_cost_analysis_request());
    case R::kLoadedExecutableHumanReadableProgramTextRequest:
      return HandleProgramText(std::move(call),
                               request.loaded_executable_human_readable_program_text_request());
    case R::kLoadedExecutableDeleteRequest:
      return HandleExecutableDelete(std::move(call), request.loaded_executable_delete_request());
    case R::kLoadedExecutableIsDeletedRequest:
      return HandleExecutableIsDeleted(std::move(call),
                                       request.loaded_executable_is_deleted_request());
    case R::kLoadedExecutableDestructRequest:
      return HandleExecutableDestruct(std::move(call),
                                      request.loaded_executable_destruct_request());
    case R::kGetDefaultDeviceAssignmentRequest:
      return HandleDefaultDeviceAssignment(std::move(call),
                                           request.get_default_device_assignment_request());
    case R::kGetDefaultLayoutRequest:
      return HandleDefaultLayout(std::move(call), request.get_default_layout_request());
    case R::kLoadedExecutableMpmdMetadataRequest:
    case R::kLoadedExecutableMpmdCostAnalysisRequest:
      return Refuse(std::move(call), request, "no executable of this server is an MPMD one");
    case R::kLoadedHostCallbackPollRequest:
    case R::kLoadedHostCallbackReturnRequest:
      return Refuse(std::move(call), request,
                    "install the causeway client package, which brings its own host callbacks");
    case R::REQUEST_NOT_SET:
      break;
  }
  Refuse(std::move(call), request,
         "its number is newer than the protocol versions that were agreed on");
}

}  // namespace causeway::proxy
