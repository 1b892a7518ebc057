// The short cut for large uploads on one machine: the client leaves a file, the server maps it.
//
// Thread safety: may be called from any thread. Maps without reading, so it does not block.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "causeway/base/shared_memory.h"

namespace causeway::proxy {

// Takes the file that a client wrote for `handle` out of `directory`; its name goes with the last
// use of it. UNIMPLEMENTED when no directory is offered, NOT_FOUND when the file is not there,
// DATA_LOSS when it is not `size` bytes long.
absl::StatusOr<std::shared_ptr<const SharedFile>> TakeLargeTransfer(const std::string& directory, uint64_t handle,
                                                                    int64_t size);

}  // namespace causeway::proxy
