// Host programs in the worker's Python interpreter.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "causeway/device/host_program.h"
#include "causeway/device/python.h"

namespace causeway::device {

// Without the GIL. Errors: what loading the user's code raised.
absl::StatusOr<std::shared_ptr<HostProgram>> LoadJaxHostProgram(PyObject* backend,
                                                                const HostProgramSpec& spec);

}  // namespace causeway::device
