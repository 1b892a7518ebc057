// The JSON of /status and /devices.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "causeway/core/status_source.h"

namespace causeway::ops {

// Everything but the devices: shape, epoch, workers, sessions, counters, gauges.
nlohmann::json StatusJson(const core::ClusterStatus& status);
// {"devices": [...]}, each with its worker's state.
nlohmann::json DevicesJson(const core::ClusterStatus& status);

}  // namespace causeway::ops
