// The JSON of /status, /devices and /events.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "causeway/core/status_source.h"

namespace causeway::ops {

// Everything but the devices: shape, epoch, workers, sessions, counters, gauges.
nlohmann::json StatusJson(const core::ClusterStatus& status);
// {"devices": [...]}, each with its worker's state.
nlohmann::json DevicesJson(const core::ClusterStatus& status);
// {"log", "next", "missed", "events": [...]}; times are seconds since 1970.
nlohmann::json EventsJson(const std::string& log_id, const core::EventBatch& batch);

}  // namespace causeway::ops
