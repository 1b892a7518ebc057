// The Prometheus text of /metrics.
#pragma once

#include <string>

#include "causeway/core/status_source.h"

namespace causeway::ops {

// Text exposition format 0.0.4; every name begins with "causeway_".
std::string MetricsText(const core::ClusterStatus& status);

}  // namespace causeway::ops
