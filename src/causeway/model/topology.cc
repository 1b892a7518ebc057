// Numbers the devices of a cluster.
#include "causeway/model/topology.h"

#include <utility>

#include "causeway/base/check.h"

namespace causeway::model {

Topology::Topology(ClusterShape shape) : shape_(std::move(shape)) {
  CHECK(shape_.slices > 0 && shape_.hosts_per_slice > 0 && shape_.devices_per_host > 0);
  devices_.reserve(shape_.num_devices());
  for (int w = 0; w < shape_.num_workers(); ++w) {
    for (int k = 0; k < shape_.devices_per_host; ++k) {
      Device d;
      d.id = DeviceId(w * shape_.devices_per_host + k);
      d.worker = WorkerId(w);
      d.slice = w / shape_.hosts_per_slice;
      d.slice_index = shape_.announce_slices ? d.slice : 0;
      d.local_ordinal = k;
      // One line of chips a slice: x counts the devices of the slice.
      const int first = shape_.announce_slices
                            ? d.slice * shape_.hosts_per_slice * shape_.devices_per_host
                            : 0;
      d.coords = {d.id.value() - first, 0, 0};
      d.kind = shape_.platform;
      devices_.push_back(std::move(d));
    }
  }
}

const Device& Topology::device(DeviceId id) const {
  CHECK(Contains(id)) << "device " << id;
  return devices_[id.value()];
}

void Topology::SetDeviceKind(WorkerId worker, const std::string& kind) {
  for (Device& d : devices_) {
    if (d.worker == worker) d.kind = kind;
  }
}

}  // namespace causeway::model
