// The program by which our client package reads arrays into files of shared memory.
//
// It travels as a plugin program, the one kind whose text is free:
//   {"causeway_fetch": {"path": "/dev/shm/causeway-UID/FOLDER/NAME", "device_ids": [0, 1]}}
// The client makes the file NAME1 before the first execution, NAME2 before the second, and so on.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "causeway/core/runtime.h"

namespace causeway::proxy {

// nullopt: the text is another plugin program's. INVALID_ARGUMENT when the path does not lie in
// `folder`, the session's own.
absl::StatusOr<std::optional<core::CompileRequest>> DecodeFetchProgram(const std::string& text,
                                                                       const std::string& folder);

}  // namespace causeway::proxy
