// Changes inputs without breaking their structure: frames as a list, messages field by field.
//
// Everything is a function of the input and the random numbers, so that a finding can be replayed.
#pragma once

#include <functional>
#include <string>

#include "absl/strings/string_view.h"
#include "causeway/base/random.h"
#include "causeway/fuzz/target.h"
#include "google/protobuf/message.h"

namespace causeway::fuzz {

// Changes plain bytes; libFuzzer brings its own, which knows what the code compared with.
using ByteMutator = std::function<void(std::string*)>;
ByteMutator SimpleBytes(Random& random);

// Changes, adds, drops or repeats one field somewhere in `message`. Bytes fields that hold messages
// themselves (shardings and the like) are opened where their content shows what they are.
void MutateMessage(google::protobuf::Message* message, Random& random, const ByteMutator& bytes);

// One to four changes of an input: to a frame, or to the list of frames.
std::string MutateInput(absl::string_view input, const Target& target, Random& random,
                        const ByteMutator& bytes);
// Some frames of `a`, then some of `b`.
std::string CrossInputs(absl::string_view a, absl::string_view b, Random& random);

}  // namespace causeway::fuzz
