// Waiting for values, reading them, and letting them go.
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "causeway/proxy/handlers.h"
#include "causeway/proxy/request_codec.h"

namespace causeway::proxy {

void HandleCheckFuture(Call call, const ifrt::FutureRequest& request) {
  Session& session = call.session();
  const uint64_t handle = request.future_handle();
  if (std::optional<FutureTable::Future> future = session.futures.Take(handle)) {
    if (future->of_deletion) call.MarkUnnumbered();
    if (!future->status.ok()) return call.Fail(std::move(future->status));
    call.response().mutable_check_future_response();
    return call.Ok();
  }
  if (session.version.protocol < kFetchExecuteResultProtocol) {
    // Older clients await executions this way.
    return session.runtime().AwaitExecution(
        session.id, StatusHandle(handle),
        [call = std::move(call)](absl::StatusOr<core::DeviceTimes> times) mutable {
          if (!times.ok()) return call.Fail(times.status());
          call.response().mutable_check_future_response();
          call.Ok();
        });
  }
  call.Fail(absl::NotFoundError(absl::StrCat(
      "future ", handle, " is not in this session; futures are forgotten once asked for")));
}

void HandleCheckValueReady(Call call, const ifrt::CheckValueReadyRequest& request) {
  Session& session = call.session();
  if (request.value_handles().empty()) {
    call.response().mutable_check_value_ready_response();
    return call.Ok();
  }
  const std::vector<ArrayHandle> arrays = DecodeHandles(request.value_handles());
  session.runtime().AwaitReady(session.id, arrays,
                               [call = std::move(call)](absl::Status status) mutable {
                                 if (!status.ok()) return call.Fail(std::move(status));
                                 call.response().mutable_check_value_ready_response();
                                 call.Ok();
                               });
}

void HandleCopyToHostBuffer(Call call, const ifrt::CopyToHostBufferRequest& request) {
  Session& session = call.session();
  std::optional<std::vector<int64_t>> strides;
  if (request.has_byte_strides()) strides = DecodeStrides(request.byte_strides());
  const uint64_t buffer = request.host_buffer_handle();
  session.runtime().CopyToHost(
      session.id, ArrayHandle(request.array_handle()), std::move(strides),
      [call = std::move(call), buffer](absl::StatusOr<absl::Cord> bytes) mutable {
        // The bytes must be there before the client hears of it: its look-up does not wait.
        absl::Status status = bytes.ok()
                                  ? call.session().buffers->PutForClient(buffer,
                                                                          *std::move(bytes))
                                  : bytes.status();
        if (!status.ok()) return call.Fail(std::move(status));
        call.response().mutable_copy_to_host_buffer_response();
        call.Ok();
      });
}

void HandleDeleteArray(Call call, const ifrt::ArrayListRequest& request) {
  call.MarkUnnumbered();
  Session& session = call.session();
  absl::Status status =
      session.runtime().Delete(session.id, DecodeHandles(request.array_handle()));
  if (!status.ok()) return call.Fail(std::move(status));
  const uint64_t future = session.runtime().NewServerHandle(session.id);
  session.futures.Put(future, {.status = absl::OkStatus(), .of_deletion = true});
  call.response().mutable_delete_array_response()->set_deletion_future_handle(future);
  call.Ok();
}

void HandleIsArrayDeleted(Call call, const ifrt::ArrayRequest& request) {
  Session& session = call.session();
  absl::StatusOr<bool> deleted =
      session.runtime().IsDeleted(session.id, ArrayHandle(request.array_handle()));
  if (!deleted.ok()) return call.Fail(deleted.status());
  call.response().mutable_is_array_deleted_response()->set_deleted(*deleted);
  call.Ok();
}

void HandleDestructArray(Call call, const ifrt::ArrayListRequest& request) {
  call.MarkUnnumbered();
  call.MarkUnawaited();
  Session& session = call.session();
  absl::Status status =
      session.runtime().Destruct(session.id, DecodeHandles(request.array_handle()));
  if (!status.ok()) return call.Fail(std::move(status));
  call.response().mutable_destruct_array_response();
  call.Ok();
}

}  // namespace causeway::proxy
