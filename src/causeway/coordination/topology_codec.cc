// Numbers the nodes and writes the topology in XLA's format.
#include <cstdint>
#include <limits>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "causeway/base/check.h"
#include "causeway/base/status_macros.h"
#include "causeway/coordination/topology.h"
#include "topology.pb.h"

namespace causeway::coordination {
namespace {

absl::Status Validate(const TopologyOptions& options) {
  const model::ClusterShape& shape = options.shape;
  if (options.incarnations_per_worker < 1) {
    return absl::InvalidArgumentError("a worker needs at least one incarnation");
  }
  if (shape.devices_per_host > limits::kDevicesPerNodeMax) {
    return absl::InvalidArgumentError(absl::StrCat(shape.devices_per_host,
                                                   " devices a host; XLA numbers at most ",
                                                   limits::kDevicesPerNodeMax));
  }
  const int64_t nodes =
      1 + int64_t{shape.num_workers()} * int64_t{options.incarnations_per_worker};
  if (nodes * limits::kDevicesPerNodeMax > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(
        shape.num_workers(), " workers with ", options.incarnations_per_worker,
        " incarnations each need more device ids than XLA has; lower either number"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string GlobalTopologyKey(const std::string& platform) {
  return absl::StrCat(platform, ":global_topology/", platform);
}

std::vector<int> NodesMeetingAt(absl::string_view key) {
  std::vector<int> nodes;
  if (!absl::ConsumePrefix(&key, "cpu:gloo/")) return nodes;
  for (const absl::string_view id : absl::StrSplit(key.substr(0, key.find('/')), ',')) {
    int device = 0;
    if (!absl::SimpleAtoi(id, &device) || device < 0) return {};
    nodes.push_back(device / limits::kDevicesPerNodeMax);
  }
  return nodes;
}

absl::StatusOr<std::string> EncodeGlobalTopology(const TopologyOptions& options) {
  RETURN_IF_ERROR(Validate(options));
  const model::ClusterShape& shape = options.shape;
  xla::GlobalTopologyProto topology;
  for (int node = 0; node < options.num_nodes(); ++node) {
    xla::LocalTopologyProto& process = *topology.add_processes();
    process.set_process_id(node);
    // Node 0 has no boot id: XLA numbers slices by the order of first appearance of those.
    if (node == 0) continue;
    const int worker = (node - 1) / options.incarnations_per_worker;
    const int slice = worker / shape.hosts_per_slice;
    process.set_boot_id(absl::StrCat("slice", slice));
    for (int k = 0; k < shape.devices_per_host; ++k) {
      const int id = GlobalDeviceId(node, k);
      xla::DeviceProto& device = *process.add_devices();
      device.set_local_device_ordinal(k);
      device.set_global_device_id(id);
      device.set_partition_index(slice);
      device.set_device_kind(shape.platform);
      device.set_to_string(shape.platform == "cpu" ? absl::StrCat("CpuDevice(id=", id, ")")
                                                   : absl::StrCat("Device(id=", id, ")"));
      device.set_debug_string(absl::StrCat(shape.platform, ":", id));
    }
  }
  return topology.SerializeAsString();
}

NodeIds::NodeIds(const TopologyOptions& options)
    : options_(options), places_(options.shape.num_workers()) {}

absl::StatusOr<int> NodeIds::New(WorkerId worker) {
  absl::MutexLock lock(&mu_);
  CHECK(worker.value() >= 0 && worker.value() < static_cast<int>(places_.size()))
      << "worker " << worker;
  Place& place = places_[worker.value()];
  const int lives = options_.incarnations_per_worker;
  if (place.by_process >= lives) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the process of worker ", worker.value(), " has had all ", lives,
        " node ids of its place (one for each failure in the cluster): start it anew, and the head "
        "with a larger --incarnations-per-worker to go on for longer"));
  }
  ++place.by_process;
  return static_cast<int>(1 + worker.value() * int64_t{lives} + place.given++ % lives);
}

void NodeIds::NewProcess(WorkerId worker) {
  absl::MutexLock lock(&mu_);
  places_[worker.value()].by_process = 0;
}

absl::StatusOr<WorkerId> NodeIds::Owner(int node) const {
  if (node < 1 || node >= num_nodes()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "node ", node, " belongs to no worker; the topology has nodes 1 to ", num_nodes() - 1));
  }
  return WorkerId((node - 1) / options_.incarnations_per_worker);
}

int NodeIds::left(WorkerId worker) const {
  absl::MutexLock lock(&mu_);
  return static_cast<int>(options_.incarnations_per_worker - places_[worker.value()].by_process);
}

}  // namespace causeway::coordination
