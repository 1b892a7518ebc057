// The shape of a cluster as its clients see it: slices of hosts of devices.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "causeway/base/strong_id.h"

namespace causeway::model {

// What a person asks for; every slice alike.
struct ClusterShape {
  int slices = 1;
  int hosts_per_slice = 1;
  int devices_per_host = 1;
  std::string platform = "cpu";
  // false: every device reports slice_index 0, so that jax.make_mesh accepts the whole cluster.
  bool announce_slices = true;

  int num_workers() const { return slices * hosts_per_slice; }
  int num_devices() const { return num_workers() * devices_per_host; }
};

// One logical device. Ids are dense: worker w owns [w * devices_per_host, (w + 1) * ...).
struct Device {
  DeviceId id;
  WorkerId worker;
  int slice = 0;          // the slice it belongs to (unit of failure)
  int slice_index = 0;    // what clients are told (0 when slices are not announced)
  int local_ordinal = 0;  // position on its worker
  std::vector<int64_t> coords;
  std::string kind;  // "cpu", "NVIDIA H200"
};

class Topology {
 public:
  Topology() = default;
  explicit Topology(ClusterShape shape);

  const ClusterShape& shape() const { return shape_; }
  const std::vector<Device>& devices() const { return devices_; }
  int num_workers() const { return shape_.num_workers(); }
  bool Contains(DeviceId id) const {
    return id.value() >= 0 && id.value() < static_cast<int32_t>(devices_.size());
  }
  // CHECKs that the id is known.
  const Device& device(DeviceId id) const;
  WorkerId WorkerOf(DeviceId id) const { return device(id).worker; }
  int SliceOf(WorkerId worker) const { return worker.value() / shape_.hosts_per_slice; }
  void SetDeviceKind(WorkerId worker, const std::string& kind);

 private:
  ClusterShape shape_;
  std::vector<Device> devices_;
};

}  // namespace causeway::model
