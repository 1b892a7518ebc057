// The short cut for large uploads on one machine: the client leaves a file, the server maps it.
//
// Thread safety: may be called from any thread. Maps without reading, so it does not block.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/cord.h"

namespace causeway::proxy {

// Takes the file that a client wrote for `handle` out of `directory`; its name is gone on return,
// its bytes when the cord is. UNIMPLEMENTED when no directory is offered, NOT_FOUND when the file
// is not there, DATA_LOSS when it is not `size` bytes long.
absl::StatusOr<absl::Cord> TakeLargeTransfer(const std::string& directory, uint64_t handle,
                                             int64_t size);

}  // namespace causeway::proxy
