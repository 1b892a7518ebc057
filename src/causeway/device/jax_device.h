// The Device over embedded jaxlib: CPU with gloo, CUDA and other PJRT plugins.
//
// The Python half is python/causeway/worker/backend.py; this half keeps references, converts plain
// structs and crosses into Python once a launch.
#pragma once

#include <functional>
#include <memory>

#include "causeway/device/device.h"
#include "causeway/device/python.h"

namespace causeway::device {

// `backend` is a causeway.worker.backend.Backend. `is_ours(local_port, peer_port)` says of a TCP
// connection that it is no collective's (control, data, coordination); AbortCollectives cuts the
// others. Called with the GIL held; the device is used without it.
absl::StatusOr<std::unique_ptr<Device>> CreateJaxDevice(
    PyRef backend, std::function<bool(int local_port, int peer_port)> is_ours);

}  // namespace causeway::device
