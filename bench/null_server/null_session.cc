// Answers of the null server: arrays are shapes, programs are output counts.
#include "bench/null_server/null_session.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "causeway/base/status_macros.h"
#include "causeway/model/dtype.h"
#include "causeway/wire/ifrt_status.h"
#include "causeway/wire/ifrt_values.h"

namespace causeway::bench {
namespace {

using Request = ifrt::IfrtRequest;

// A program called "..._outputs_<n>" has n outputs. The artifact keeps its strings as plain text,
// so the name can be found in it without any MLIR.
int NumOutputsByName(absl::string_view program) {
  constexpr absl::string_view kMark = "_outputs_";
  const size_t at = program.find(kMark);
  if (at == absl::string_view::npos) return -1;
  absl::string_view digits = program.substr(at + kMark.size());
  size_t length = 0;
  while (length < digits.size() && std::isdigit(static_cast<unsigned char>(digits[length]))) {
    ++length;
  }
  int count = 0;
  return absl::SimpleAtoi(digits.substr(0, length), &count) ? count : -1;
}

// The reply to a deletion, and to the question when it will be done, is taken by a path of the
// client that does not look at the sequence: a number spent on it would leave a gap.
bool IsOutsideSequence(const Request& request, bool of_deletion) {
  switch (request.request_case()) {
    case Request::kDestructArrayRequest:
    case Request::kDeleteArrayRequest:
      return true;
    case Request::kCheckFutureRequest:
      return of_deletion;
    default:
      return false;
  }
}

}  // namespace

NullSession::NullSession(uint64_t id, int num_devices, SendReply send)
    : id_(id), num_devices_(num_devices), send_(std::move(send)) {}

void NullSession::Handle(const ifrt::IfrtRequest& request) {
  absl::MutexLock lock(&mu_);
  if (request.request_case() == Request::kCheckValueReadyRequest) {
    const auto& wanted = request.check_value_ready_request();
    if (const int due = UploadsDue(wanted); due > 0) {
      auto question = std::make_shared<ReadyQuestion>(ReadyQuestion{request, due});
      for (uint64_t handle : wanted.value_handles()) {
        auto array = arrays_.find(handle);
        if (array == arrays_.end()) continue;
        auto upload = awaited_.find(array->second->upload);
        if (upload != awaited_.end()) upload->second.push_back(question);
      }
      return;
    }
  }
  ifrt::IfrtResponse reply;
  absl::Status status = Answer(request, &reply);
  Reply(request, std::move(reply), std::move(status));
}

void NullSession::Uploaded(uint64_t handle) {
  absl::MutexLock lock(&mu_);
  auto waiting = awaited_.find(handle);
  if (waiting == awaited_.end()) {
    uploaded_.insert(handle);
    return;
  }
  std::vector<std::shared_ptr<ReadyQuestion>> questions = std::move(waiting->second);
  awaited_.erase(waiting);
  for (const auto& question : questions) {
    if (--question->uploads_due > 0) continue;
    ifrt::IfrtResponse reply;
    reply.mutable_check_value_ready_response();
    Reply(question->request, std::move(reply), absl::OkStatus());
  }
}

absl::StatusOr<int64_t> NullSession::HostBufferSize(uint64_t handle) {
  absl::MutexLock lock(&mu_);
  auto found = host_buffers_.find(handle);
  if (found == host_buffers_.end()) {
    return absl::NotFoundError(absl::StrCat("host buffer ", handle,
                                            " is not known: read an array "
                                            "into it first"));
  }
  return found->second;
}

void NullSession::DeleteHostBuffer(uint64_t handle) {
  absl::MutexLock lock(&mu_);
  host_buffers_.erase(handle);
}

void NullSession::Close() {
  absl::MutexLock lock(&mu_);
  closed_ = true;
}

void NullSession::Reply(const ifrt::IfrtRequest& request, ifrt::IfrtResponse reply,
                        absl::Status status) {
  if (closed_) return;
  const auto& asked = request.request_metadata();
  if (asked.user_context_id() != 0) released_contexts_.push_back(asked.user_context_id());
  auto* metadata = reply.mutable_response_metadata();
  metadata->set_op_id(asked.op_id());
  if (!status.ok()) {
    reply.clear_response();
    wire::StatusToProto(status, metadata->mutable_status());
  } else {
    const bool of_deletion = request.request_case() == Request::kCheckFutureRequest &&
                             deletions_.erase(request.check_future_request().future_handle()) > 0;
    if (!IsOutsideSequence(request, of_deletion)) {
      metadata->set_seq_num(next_seq_++);
      for (uint64_t context : released_contexts_) {
        metadata->add_destroyed_user_context_ids(context);
      }
      released_contexts_.clear();
    }
  }
  send_(std::move(reply));
}

absl::Status NullSession::Answer(const ifrt::IfrtRequest& request, ifrt::IfrtResponse* reply) {
  switch (request.request_case()) {
    case Request::kLoadedExecutableExecuteRequest:
      return Execute(request.loaded_executable_execute_request(),
                     reply->mutable_loaded_executable_execute_response());
    case Request::kDestructArrayRequest:
      for (uint64_t handle : request.destruct_array_request().array_handle()) {
        arrays_.erase(handle);
      }
      reply->mutable_destruct_array_response();
      return absl::OkStatus();
    case Request::kCheckValueReadyRequest:
      reply->mutable_check_value_ready_response();
      return absl::OkStatus();
    case Request::kFullyReplicatedShardRequest: {
      const auto& asked = request.fully_replicated_shard_request();
      ASSIGN_OR_RETURN(SpecRef array, Find(asked.array_handle()));
      const uint64_t result = asked.result_handle() != 0 ? asked.result_handle() : NewHandle();
      arrays_[result] = std::move(array);
      reply->mutable_fully_replicated_shard_response()->set_array_handle(result);
      return absl::OkStatus();
    }
    case Request::kCopyToHostBufferRequest:
      reply->mutable_copy_to_host_buffer_response();
      return CopyToHost(request.copy_to_host_buffer_request());
    case Request::kMakeArrayFromHostBufferRequest: {
      const auto& asked = request.make_array_from_host_buffer_request();
      const uint64_t result = asked.array_handle() != 0 ? asked.array_handle() : NewHandle();
      const uint64_t upload = asked.host_buffer_handle();
      arrays_[result] = std::make_shared<const Spec>(
          Spec{asked.dtype(), asked.shape(), asked.sharding(), upload});
      if (uploaded_.erase(upload) == 0) awaited_.try_emplace(upload);
      reply->mutable_make_array_from_host_buffer_response()->set_array_handle(result);
      return absl::OkStatus();
    }
    case Request::kMakeArraysFromHostBufferShardsRequest:
      MakeFromShards(request.make_arrays_from_host_buffer_shards_request(),
                     reply->mutable_make_arrays_from_host_buffer_shards_response());
      return absl::OkStatus();
    case Request::kInitRequest:
      Init(reply->mutable_init_response());
      return absl::OkStatus();
    case Request::kCompileRequest:
      return Compile(request.compile_request(), reply->mutable_compile_response());
    case Request::kLoadedExecutableMetadataRequest: {
      // The client takes its defaults for what is answered with an error.
      auto* metadata = reply->mutable_loaded_executable_metadata_response();
      const absl::Status unknown = absl::UnimplementedError("the null server compiles nothing");
      wire::StatusToProto(unknown, metadata->mutable_output_memory_kinds()->mutable_status());
      wire::StatusToProto(unknown, metadata->mutable_parameter_layouts_error());
      wire::StatusToProto(unknown, metadata->mutable_output_layouts_error());
      wire::StatusToProto(unknown, metadata->mutable_compiled_memory_stats_error());
      metadata->mutable_donated_input_indices();
      return absl::OkStatus();
    }
    case Request::kCheckFutureRequest:
      reply->mutable_check_future_response();
      return absl::OkStatus();
    case Request::kGetDefaultLayoutRequest:
      reply->mutable_get_default_layout_response()->set_serialized_pjrt_layout(
          wire::RowMajorLayoutText(request.get_default_layout_request().dims_size()));
      return absl::OkStatus();
    case Request::kDeleteArrayRequest: {
      const uint64_t future = NewHandle();
      deletions_.insert(future);
      reply->mutable_delete_array_response()->set_deletion_future_handle(future);
      return absl::OkStatus();
    }
    case Request::kLoadedExecutableDestructRequest:
      executables_.erase(request.loaded_executable_destruct_request().loaded_executable_handle());
      reply->mutable_loaded_executable_destruct_response();
      return absl::OkStatus();
    default:
      return absl::UnimplementedError(
          absl::StrCat("the null server has no answer to request number ", request.request_case(),
                       ": use a real cluster for this program"));
  }
}

void NullSession::Init(ifrt::InitResponse* reply) {
  reply->set_session_id(id_);
  reply->set_platform_name("cpu");
  reply->set_platform_version("null server");
  reply->set_platform_id(1);
  reply->set_runtime_type("pathways");
  for (int id = 0; id < num_devices_; ++id) {
    auto* device = reply->add_all_devices();
    device->set_id(id);
    device->set_local_hardware_id(id);
    device->set_local_device_id(id);
    device->set_device_kind("null");
    device->set_platform_name("cpu");
    device->set_debug_string(absl::StrCat("NullDevice(id=", id, ")"));
    device->set_to_string(absl::StrCat("NullDevice(id=", id, ")"));
    device->set_default_memory_id(id);
    device->add_memory_ids(id);
    reply->add_addressable_device_ids(id);
    reply->add_primary_device_ids(id);
    auto* memory = reply->add_memories();
    memory->set_id(id);
    memory->set_memory_space_kind("device");
    memory->add_device_ids(id);
    memory->set_debug_string(absl::StrCat("NullMemory(id=", id, ")"));
    memory->set_to_string(absl::StrCat("NullMemory(id=", id, ")"));
  }
  auto& attributes = *reply->mutable_client_attributes()->mutable_attributes();
  attributes["serialize_with_sdy"].set_bool_value(true);
  attributes["supports_executable_serialization"].set_bool_value(false);
}

absl::Status NullSession::Compile(const ifrt::CompileRequest& request,
                                  ifrt::CompileResponse* reply) {
  ASSIGN_OR_RETURN(wire::CompileOptions options,
                   wire::ParseXlaCompileOptions(request.compile_options().data()));
  const uint64_t handle = NewHandle();
  executables_[handle].num_outputs = NumOutputsByName(request.program().data());
  reply->set_loaded_executable_handle(handle);
  reply->set_name("null");
  if (options.devices.empty()) options.devices.push_back(DeviceId(0));
  reply->set_num_devices(static_cast<int>(options.devices.size()));
  for (DeviceId device : options.devices) {
    reply->add_addressable_device_ids(device.value());
    reply->add_device_ids(device.value());
  }
  reply->set_ready_future_handle(NewHandle());
  return absl::OkStatus();
}

absl::Status NullSession::Execute(const ifrt::ExecuteRequest& request,
                                  ifrt::ExecuteResponse* reply) {
  auto found = executables_.find(request.loaded_executable_handle());
  if (found == executables_.end()) return absl::InvalidArgumentError("no such executable");
  Executable& executable = found->second;
  if (!executable.executed) {
    if (request.args_handles_size() == 0) {
      return absl::UnimplementedError(
          "the null server takes the outputs of a program from its arguments, and this one has "
          "none: make arrays with jax.device_put of a NumPy array");
    }
    const int outputs =
        executable.num_outputs >= 0 ? executable.num_outputs : request.args_handles_size();
    for (int i = 0; i < outputs; ++i) {
      const int like = std::min(i, request.args_handles_size() - 1);
      ASSIGN_OR_RETURN(SpecRef argument, Find(request.args_handles(like)));
      auto spec = std::make_shared<Spec>(*argument);
      spec->upload = 0;
      executable.outputs.push_back(std::move(spec));
    }
    executable.executed = true;
  } else {
    for (uint64_t argument : request.args_handles()) RETURN_IF_ERROR(Find(argument).status());
  }
  const bool named = request.result_array_handle_size() > 0;
  for (size_t i = 0; i < executable.outputs.size(); ++i) {
    const SpecRef& spec = executable.outputs[i];
    if (named) {
      arrays_[request.result_array_handle(static_cast<int>(i))] = spec;
      continue;
    }
    const uint64_t handle = NewHandle();
    arrays_[handle] = spec;
    auto* output = reply->add_outputs();
    *output->mutable_dtype() = spec->dtype;
    *output->mutable_shape() = spec->shape;
    output->set_sharding(spec->sharding);
    output->set_array_handle(handle);
  }
  if (request.execute_options().fill_status()) {
    return absl::UnimplementedError("the null server keeps no execution status");
  }
  return absl::OkStatus();
}

void NullSession::MakeFromShards(const ifrt::MakeArraysFromShardsRequest& request,
                                 ifrt::ArrayListReply* reply) {
  for (int i = 0; i < request.specs_size(); ++i) {
    const auto& asked = request.specs(i);
    const auto& spec = asked.array_spec();
    // Readiness is awaited for the last upload alone: good enough for a floor.
    const uint64_t upload =
        asked.host_buffers().empty() ? 0 : asked.host_buffers().rbegin()->host_buffer_handle();
    for (const auto& buffer : asked.host_buffers()) {
      if (buffer.host_buffer_handle() != upload) uploaded_.erase(buffer.host_buffer_handle());
    }
    if (upload != 0 && uploaded_.erase(upload) == 0) awaited_.try_emplace(upload);
    const uint64_t handle =
        i < request.array_handles_size() ? request.array_handles(i) : NewHandle();
    arrays_[handle] =
        std::make_shared<const Spec>(Spec{spec.dtype(), spec.shape(), spec.sharding(), upload});
    reply->add_array_handles(handle);
  }
}

absl::Status NullSession::CopyToHost(const ifrt::CopyToHostBufferRequest& request) {
  ASSIGN_OR_RETURN(SpecRef array, Find(request.array_handle()));
  ASSIGN_OR_RETURN(model::DType dtype, wire::ParseDType(array->dtype.kind()));
  int64_t bytes = model::HostByteWidth(dtype);
  if (bytes < 0) return absl::UnimplementedError("the null server has no strings");
  for (int64_t dim : array->shape.dims()) bytes *= dim;
  host_buffers_[request.host_buffer_handle()] = bytes;
  return absl::OkStatus();
}

int NullSession::UploadsDue(const ifrt::CheckValueReadyRequest& request) {
  int due = 0;
  for (uint64_t handle : request.value_handles()) {
    auto array = arrays_.find(handle);
    if (array != arrays_.end() && awaited_.contains(array->second->upload)) ++due;
  }
  return due;
}

absl::StatusOr<NullSession::SpecRef> NullSession::Find(uint64_t array) {
  auto found = arrays_.find(array);
  if (found == arrays_.end()) {
    return absl::InvalidArgumentError(absl::StrCat("array ", array, " is not known"));
  }
  return found->second;
}

}  // namespace causeway::bench
