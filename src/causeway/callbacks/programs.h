// Finds the callback group that a program's custom calls name, in its bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace causeway::callbacks {

// A program with callbacks belongs to the process that registered them: it must not be shared with
// another session, and its functions may go when it goes.
struct ProgramGroup {
  std::string token;   // of the client's channel
  uint64_t group = 0;  // one a program, chosen by the client
};

// Parses "causeway-callbacks:<token>:<group>;", the whole of `text`.
std::optional<ProgramGroup> ParseChannel(absl::string_view text);

// The first such text anywhere in a program (MLIR bytecode or text keep strings as they are).
std::optional<ProgramGroup> FindGroup(absl::string_view program);

}  // namespace causeway::callbacks
