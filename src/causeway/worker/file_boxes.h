// Writes a shard as its box of a dense array that lies in a file.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "causeway/device/types.h"
#include "causeway/worker/commands.h"

namespace causeway::worker {

// The file exists and belongs to this user; it is written, not mapped, so that a client which cuts
// it short gets an error and nothing worse. INVALID_ARGUMENT: the box lies outside the array.
absl::Status WriteBox(const std::string& path, const FilePart& part,
                      const device::HostShard& shard);

}  // namespace causeway::worker
