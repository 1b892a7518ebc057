// What all threads of this process are at, for the log of a process that is about to end.
#pragma once

#include <string>

#include "absl/time/time.h"

namespace causeway {

// The stacks of all threads, equal ones once, with the names of functions as far as `max` allows.
// Signals the threads, which may end their calls to the system: not for a process that goes on.
// Thread safety: one call at a time.
std::string ThreadStacks(absl::Duration max);

}  // namespace causeway
