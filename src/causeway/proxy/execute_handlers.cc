// Running programs. The client waits for the first execution's reply only, to learn the outputs.
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "causeway/proxy/handlers.h"
#include "causeway/proxy/request_codec.h"

namespace causeway::proxy {
namespace {

absl::Status DecodeExecute(const ifrt::ExecuteRequest& proto, core::ExecuteRequest* out) {
  out->executable = ExecutableHandle(proto.loaded_executable_handle());
  out->args.clear();
  for (uint64_t handle : proto.args_handles()) out->args.emplace_back(handle);
  const auto& keep = proto.execute_options().non_donatable_input_indices();
  out->non_donatable.assign(keep.begin(), keep.end());
  out->want_status = proto.execute_options().fill_status();
  out->stream = proto.execute_options().execution_stream_id();
  out->status = StatusHandle(proto.result_status_handle());
  out->results.clear();
  if (!proto.device_ids().empty()) {
    return absl::UnimplementedError(
        "portable executables, which name their devices at each execution, are not supported; "
        "compile with a device assignment");
  }
  for (uint64_t handle : proto.result_array_handle()) {
    if (!IsClientHandle(handle)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "result handle ", handle, " is not a client's; use 1 to ", kFirstServerHandle - 1));
    }
    out->results.emplace_back(handle);
  }
  if (proto.result_status_handle() >= kFirstServerHandle) {
    return absl::InvalidArgumentError(
        absl::StrCat("status handle ", proto.result_status_handle(), " is not a client's"));
  }
  return absl::OkStatus();
}

// The client keeps what it learns here for every later execution.
absl::Status DescribeOutputs(Session& session, const core::ExecuteRequest& request,
                             const core::ExecuteResult& result, ifrt::ExecuteResponse* out) {
  auto view = session.runtime().GetExecutable(session.id, request.executable);
  if (!view.ok()) return view.status();
  const std::vector<core::ArraySpec>& outputs =
      result.outputs.empty() ? (*view)->outputs : result.outputs;
  if (outputs.size() != result.results.size()) {
    return absl::InternalError(absl::StrCat("an execution made ", result.results.size(),
                                            " arrays for ", outputs.size(), " outputs"));
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    const core::ArraySpec& spec = outputs[i];
    ifrt::ExecuteResponse::Output* output = out->add_outputs();
    output->mutable_dtype()->set_kind(static_cast<int32_t>(spec.dtype));
    output->mutable_shape()->mutable_dims()->Add(spec.shape.begin(), spec.shape.end());
    // One device: the plain form, whatever form the program's sharding has.
    const model::Sharding& sharding = *spec.sharding;
    const bool single = sharding.num_shards() == 1;
    output->set_sharding(wire::SerializeSharding(
        single ? *model::Sharding::SingleDevice(sharding.devices().front(), sharding.memory_kind())
               : sharding,
        session.default_memory_kind));
    output->set_array_handle(result.results[i].value());
  }
  return absl::OkStatus();
}

}  // namespace

void HandleExecute(Call call, const ifrt::ExecuteRequest& request) {
  Session& session = call.session();
  core::ExecuteRequest& decoded = session.execute_scratch;
  if (absl::Status s = DecodeExecute(request, &decoded); !s.ok()) {
    if (IsClientHandle(request.result_status_handle())) {
      session.futures.Put(request.result_status_handle(), {.status = s});
    }
    return FailBound(std::move(call), std::move(s), request.result_array_handle());
  }
  absl::StatusOr<core::ExecuteResult> result = session.runtime().Execute(session.id, decoded);
  if (!result.ok()) return call.Fail(call.Annotate(result.status()));
  ifrt::ExecuteResponse* out = call.response().mutable_loaded_executable_execute_response();
  // A status handle that nobody asked for would stop the client.
  if (decoded.want_status && decoded.status.value() == 0) {
    out->set_status_handle(result->status.value());
  }
  if (!decoded.results.empty() && !decoded.want_status) call.MarkUnawaited();
  if (decoded.results.empty()) {
    if (absl::Status s = DescribeOutputs(session, decoded, *result, out); !s.ok()) {
      return call.Fail(std::move(s));
    }
  }
  call.Ok();
}

void HandleFetchExecuteResult(Call call, const ifrt::FetchExecuteResultRequest& request) {
  Session& session = call.session();
  const uint64_t handle = request.result_status_handle();
  // Executions that failed before they reached the runtime left their outcome here.
  if (std::optional<FutureTable::Future> future = session.futures.Take(handle)) {
    if (!future->status.ok()) return call.Fail(std::move(future->status));
  }
  session.runtime().AwaitExecution(
      session.id, StatusHandle(handle),
      [call = std::move(call)](absl::StatusOr<core::DeviceTimes> times) mutable {
        if (!times.ok()) return call.Fail(times.status());
        auto& out = *call.response()
                         .mutable_loaded_executable_fetch_execute_result_response()
                         ->mutable_device_time();
        for (const auto& [name, us] : *times) out[name] = us;
        call.Ok();
      });
}

}  // namespace causeway::proxy
