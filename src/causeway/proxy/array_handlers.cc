// Arrays made from other arrays.
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "causeway/proxy/handlers.h"
#include "causeway/proxy/request_codec.h"

namespace causeway::proxy {
namespace {

// Reshard and bitcast differ only in what the runtime does.
using Respec = absl::Status (core::Runtime::*)(SessionId, const std::vector<ArrayHandle>&,
                                               const std::vector<core::ArraySpec>&,
                                               core::CopySemantics,
                                               const std::vector<ArrayHandle>&);

void HandleRespec(Call call, const ifrt::RespecArraysRequest& request, Respec respec,
                  ifrt::ArrayListReply* (ifrt::IfrtResponse::*member)()) {
  Session& session = call.session();
  absl::StatusOr<core::CopySemantics> copy = DecodeCopy(request.copy_semantics());
  absl::StatusOr<std::vector<core::ArraySpec>> specs =
      DecodeSpecs(session, request.array_specs());
  absl::StatusOr<Results> results =
      TakeResults(session, request.result_handles(), request.array_specs_size());
  absl::Status status = copy.status();
  status.Update(specs.status());
  status.Update(results.status());
  if (status.ok() && request.array_handles_size() != request.array_specs_size()) {
    status = absl::InvalidArgumentError(
        absl::StrCat("the request lists ", request.array_handles_size(), " arrays and ",
                     request.array_specs_size(), " specs; each array needs one"));
  }
  if (!status.ok()) return FailBound(std::move(call), std::move(status), request.result_handles());
  status = (session.runtime().*respec)(session.id, DecodeHandles(request.array_handles()), *specs,
                                       *copy, results->handles);
  AnswerList(std::move(call), status, *results, member);
}

}  // namespace

void HandleAssemble(Call call, const ifrt::AssembleRequest& request) {
  Session& session = call.session();
  absl::StatusOr<core::CopySemantics> copy = DecodeCopy(request.copy_semantics());
  absl::StatusOr<core::ArraySpec> spec =
      DecodeSpec(session, request.dtype().kind(), request.shape(), request.sharding(), "");
  absl::StatusOr<Results> results = TakeResult(session, request.result_handle());
  absl::Status status = copy.status();
  status.Update(spec.status());
  status.Update(results.status());
  if (!status.ok()) return FailBound(std::move(call), std::move(status), request.result_handle());
  status = session.runtime().Assemble(session.id, results->handles.front(), *std::move(spec),
                                      DecodeHandles(request.single_device_array_handles()), *copy);
  AnswerOne(std::move(call), status, *results,
            &ifrt::IfrtResponse::mutable_assemble_array_from_single_device_arrays_response);
}

void HandleDisassemble(Call call, const ifrt::DisassembleRequest& request) {
  Session& session = call.session();
  const ArrayHandle array(request.array_handle());
  absl::StatusOr<core::CopySemantics> copy = DecodeCopy(request.copy_semantics());
  absl::Status status = copy.status();
  int count = request.result_handles_size();
  if (count == 0 && status.ok()) {
    absl::StatusOr<int> shards = session.runtime().NumShards(session.id, array);
    status = shards.status();
    if (shards.ok()) count = *shards;
  }
  absl::StatusOr<Results> results = TakeResults(session, request.result_handles(), count);
  status.Update(results.status());
  if (!status.ok()) return FailBound(std::move(call), std::move(status), request.result_handles());
  status = session.runtime().Disassemble(session.id, array, results->handles, *copy);
  AnswerList(std::move(call), status, *results,
             &ifrt::IfrtResponse::mutable_disassemble_into_single_device_arrays_response);
}

void HandleFullyReplicatedShard(Call call, const ifrt::FullyReplicatedShardRequest& request) {
  Session& session = call.session();
  absl::StatusOr<core::CopySemantics> copy = DecodeCopy(request.copy_semantics());
  absl::StatusOr<Results> results = TakeResult(session, request.result_handle());
  absl::Status status = copy.status();
  status.Update(results.status());
  if (!status.ok()) return FailBound(std::move(call), std::move(status), request.result_handle());
  status = session.runtime().FullyReplicatedShard(session.id, ArrayHandle(request.array_handle()),
                                                  results->handles.front(), *copy);
  AnswerOne(std::move(call), status, *results,
            &ifrt::IfrtResponse::mutable_fully_replicated_shard_response);
}

void HandleCopyArrays(Call call, const ifrt::CopyArraysRequest& request) {
  Session& session = call.session();
  absl::StatusOr<core::CopySemantics> copy = DecodeCopy(request.copy_semantics());
  absl::StatusOr<Results> results =
      TakeResults(session, request.result_handles(), request.array_handles_size());
  absl::Status status = copy.status();
  status.Update(results.status());
  if (!status.ok()) return FailBound(std::move(call), std::move(status), request.result_handles());
  std::vector<DeviceId> devices;
  for (int32_t id : request.device_ids()) devices.emplace_back(id);
  std::optional<std::string> memory_kind;
  if (request.has_memory_kind()) memory_kind = request.memory_kind();
  status = session.runtime().CopyArrays(session.id, DecodeHandles(request.array_handles()),
                                        devices, memory_kind, *copy, results->handles);
  AnswerList(std::move(call), status, *results,
             &ifrt::IfrtResponse::mutable_copy_arrays_response);
}

void HandleRemapArrays(Call call, const ifrt::RemapArraysRequest& request) {
  Session& session = call.session();
  absl::StatusOr<core::CopySemantics> copy = DecodeCopy(request.copy_semantics());
  absl::StatusOr<std::vector<core::ArraySpec>> specs =
      DecodeSpecs(session, request.plan().output_specs());
  absl::StatusOr<std::vector<core::RemapMapping>> mappings = DecodeMappings(request.plan());
  absl::StatusOr<Results> results =
      TakeResults(session, request.result_handles(), request.plan().output_specs_size());
  absl::Status status = copy.status();
  status.Update(specs.status());
  status.Update(mappings.status());
  status.Update(results.status());
  if (!status.ok()) return FailBound(std::move(call), std::move(status), request.result_handles());
  status = session.runtime().RemapArrays(session.id, DecodeHandles(request.array_handles()),
                                         *specs, *mappings, *copy, results->handles);
  AnswerList(std::move(call), status, *results,
             &ifrt::IfrtResponse::mutable_remap_arrays_response);
}

void HandleReshardArrays(Call call, const ifrt::RespecArraysRequest& request) {
  HandleRespec(std::move(call), request, &core::Runtime::ReshardArrays,
               &ifrt::IfrtResponse::mutable_reshard_arrays_response);
}

void HandleBitcastArrays(Call call, const ifrt::RespecArraysRequest& request) {
  HandleRespec(std::move(call), request, &core::Runtime::BitcastArrays,
               &ifrt::IfrtResponse::mutable_bitcast_arrays_response);
}

}  // namespace causeway::proxy
