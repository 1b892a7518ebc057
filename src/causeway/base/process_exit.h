// How a process of this machine ended, asked of the kernel by somebody who is not its parent.
//
// From the moment at which a dying process closes its files until its parent has waited for it, the
// kernel still tells its exit status. That is when the other end of its connections hears of the
// end, so an error can name the cause and not only the consequence.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace causeway {

// Tells apart processes that had the same pid; 0 when no process has it.
uint64_t ProcessStart(int pid);

// "killed by signal 9 (SIGKILL)", "exit status 3"; "" when the process runs, is another one than
// `start` says, or is unknown here.
std::string HowProcessEnded(int pid, uint64_t start);

// What HowProcessEnded makes of the text of /proc/PID/stat; for tests.
std::string HowProcessEnded(absl::string_view stat, uint64_t start);

}  // namespace causeway
