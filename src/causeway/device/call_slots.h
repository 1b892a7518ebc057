// Puts a function of ours in the place of one that a loaded library calls in another.
#pragma once

#include "absl/strings/string_view.h"

namespace causeway::device {

// From now on the library whose file has this name ("" is the program itself) calls `replacement`
// where it called the function of that name in another library (its slot in the table by which the
// dynamic linker binds such calls; ELF, x86-64 and AArch64). Calls from anywhere else stay as they
// are. Repeating it does no harm, and mends a slot that the linker has bound in the meantime.
// Returns whether there is such a slot.
bool ReplaceCalls(absl::string_view library, absl::string_view function, void* replacement);

}  // namespace causeway::device
