// Tells a new client what the cluster looks like.
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "causeway/base/log.h"
#include "causeway/model/sharding.h"
#include "causeway/proxy/handlers.h"
#include "causeway/wire/ifrt_values.h"

namespace causeway::proxy {
namespace {

using AttributeMap = google::protobuf::Map<std::string, ifrt::AttributeMapProto::Value>;

// Clients only compare platform ids; FNV-1a of the name is as stable as any.
uint64_t PlatformId(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001b3u;
  return hash;
}

// JAX looks for these words in the version text to choose code paths.
std::string PlatformVersion(const core::ClusterView& view) {
  if ((view.platform == "cuda" || view.platform == "rocm") &&
      !absl::StrContains(view.platform_version, view.platform)) {
    return absl::StrCat(view.platform, " ", view.platform_version);
  }
  return view.platform_version;
}

// As the local clients of these platforms print their devices: str() and repr().
std::pair<std::string, std::string> DeviceNames(const std::string& platform, int32_t id) {
  if (platform == "cpu") {
    return {absl::StrCat("TFRT_CPU_", id), absl::StrCat("CpuDevice(id=", id, ")")};
  }
  if (platform == "cuda") {
    return {absl::StrCat("cuda:", id), absl::StrCat("CudaDevice(id=", id, ")")};
  }
  return {absl::StrCat(platform, ":", id), absl::StrCat(platform, "(id=", id, ")")};
}

void FillDevice(const core::ClusterView& view, const model::Device& device,
                ifrt::InitResponse::Device* out) {
  const int32_t id = device.id.value();
  auto [debug_string, to_string] = DeviceNames(view.platform, id);
  out->set_id(id);
  out->set_local_hardware_id(id);
  out->set_local_device_id(id);
  out->set_platform_name(view.platform);
  out->set_device_kind(device.kind.empty() ? view.platform : device.kind);
  out->set_debug_string(std::move(debug_string));
  out->set_to_string(std::move(to_string));
  AttributeMap& attributes = *out->mutable_attributes()->mutable_attributes();
  auto* coords = attributes["coords"].mutable_int64_list_value();
  coords->mutable_elements()->Add(device.coords.begin(), device.coords.end());
  attributes["core_on_chip"].set_int64_value(0);
  attributes["num_cores"].set_int64_value(1);
  attributes["slice_index"].set_int64_value(device.slice_index);
  // colocated_python looks for the CPU device beside a device by this number.
  if (view.platform == "cpu") attributes["colocation_id"].set_int64_value(id);
  // Checkpoint libraries group devices by it: one task is one worker.
  attributes["virtual_task_index"].set_int64_value(device.worker.value());
}

void FillMemories(const core::ClusterView& view, ifrt::InitResponse* init) {
  const int kinds = static_cast<int>(view.memory_kinds.size());
  for (int d = 0; d < init->all_devices_size(); ++d) {
    ifrt::InitResponse::Device* device = init->mutable_all_devices(d);
    for (int k = 0; k < kinds; ++k) {
      const int32_t memory_id = d * kinds + k;
      ifrt::InitResponse::Memory* memory = init->add_memories();
      memory->set_id(memory_id);
      memory->set_memory_space_kind(view.memory_kinds[k]);
      memory->set_kind_id(k + 1);
      memory->add_device_ids(device->id());
      const std::string name =
          absl::StrCat(view.memory_kinds[k], " memory of ", device->debug_string());
      memory->set_debug_string(name);
      memory->set_to_string(name);
      device->add_memory_ids(memory_id);
    }
    if (kinds > 0) device->set_default_memory_id(d * kinds);
  }
}

void FillClientAttributes(const Options& options, AttributeMap* out) {
  for (const auto& [name, value] : options.client_attributes) {
    auto& attribute = (*out)[name];
    if (const auto* text = std::get_if<std::string>(&value)) attribute.set_string_value(*text);
    if (const auto* number = std::get_if<int64_t>(&value)) attribute.set_int64_value(*number);
    if (const auto* truth = std::get_if<bool>(&value)) attribute.set_bool_value(*truth);
  }
  // jax.export asks for the first; the second keeps compile caches from trying in vain.
  (*out)["serialize_with_sdy"].set_bool_value(true);
  (*out)["supports_executable_serialization"].set_bool_value(false);
}

}  // namespace

void HandleInit(Call call) {
  Session& session = call.session();
  if (session.initialized) {
    return call.Fail(absl::FailedPreconditionError(
        "this session has had its init_request; open a new stream for a new session"));
  }
  const core::ClusterView view = session.runtime().Describe();
  session.id = session.runtime().OpenSession(session.peer);
  session.initialized = true;
  if (!view.memory_kinds.empty()) session.default_memory_kind = view.memory_kinds.front();
  session.context->Publish(session.id, session.buffers);
  session.context->counters.sessions_opened.fetch_add(1, std::memory_order_relaxed);
  LOG(INFO) << "session " << session.id << " of " << session.peer << " opened, protocol "
            << session.version.protocol << ", serialization " << session.version.serdes;

  ifrt::InitResponse* init = call.response().mutable_init_response();
  init->set_session_id(session.id.value());
  init->set_platform_name(view.platform);
  init->set_platform_version(PlatformVersion(view));
  init->set_platform_id(PlatformId(view.platform));
  init->set_process_index(0);  // one controller: every device looks local
  init->set_runtime_type(session.context->options.runtime_type);
  for (const model::Device& device : view.devices) {
    FillDevice(view, device, init->add_all_devices());
    init->add_addressable_device_ids(device.id.value());
    init->add_primary_device_ids(device.id.value());
  }
  FillMemories(view, init);
  FillClientAttributes(session.context->options,
                       init->mutable_client_attributes()->mutable_attributes());
  call.Ok();
}

void HandleDefaultDeviceAssignment(Call call,
                                   const ifrt::DefaultDeviceAssignmentRequest& request) {
  const core::ClusterView view = call.session().runtime().Describe();
  const uint64_t replicas = request.num_replicas(), partitions = request.num_partitions();
  const uint64_t available = view.devices.size();
  if (replicas == 0 || partitions == 0 || replicas > available ||
      partitions > available / replicas) {
    return call.Fail(absl::InvalidArgumentError(
        absl::StrCat("a default assignment of ", replicas, " x ", partitions,
                     " devices does not fit the ", available, " devices of this cluster; ask for "
                     "at least 1 and at most that many")));
  }
  ifrt::DeviceAssignmentProto* out =
      call.response().mutable_get_default_device_assignment_response()->mutable_device_assignment();
  out->set_replica_count(static_cast<int32_t>(replicas));
  out->set_computation_count(static_cast<int32_t>(partitions));
  for (uint64_t p = 0; p < partitions; ++p) {
    auto* column = out->add_computation_devices();
    for (uint64_t r = 0; r < replicas; ++r) {
      column->add_replica_device_ids(view.devices[r * partitions + p].id.value());
    }
  }
  call.Ok();
}

void HandleDefaultLayout(Call call, const ifrt::DefaultLayoutRequest& request) {
  if (absl::StatusOr<model::DType> dtype = wire::ParseDType(request.dtype().kind()); !dtype.ok()) {
    return call.Fail(dtype.status());
  }
  if (absl::Status s = model::CheckShape({request.dims().begin(), request.dims().end()}); !s.ok()) {
    return call.Fail(std::move(s));
  }
  call.response().mutable_get_default_layout_response()->set_serialized_pjrt_layout(
      wire::RowMajorLayoutText(static_cast<size_t>(request.dims_size())));
  call.Ok();
}

}  // namespace causeway::proxy
