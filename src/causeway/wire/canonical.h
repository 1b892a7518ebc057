// One form for serialized messages that differ only in the order of their map entries.
//
// Protocol buffers write maps in any order, anew for each serialization, so equal compile options
// have many encodings. Bytes that are to be compared or hashed go through here first.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace causeway::wire {

// `message` with every run of map entries sorted, at any depth. A run is two or more neighbouring
// length-delimited fields of one number whose contents each look like an entry: a key in field 1,
// a value in field 2, nothing else. Bytes that are no message come back as they are.
std::string CanonicalMaps(absl::string_view message);

}  // namespace causeway::wire
