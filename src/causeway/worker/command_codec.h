// Commands and events to and from the messages of proto/control.proto.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "causeway/worker/commands.h"

namespace causeway::control {
class Data;
class Event;
}  // namespace causeway::control

namespace causeway::worker {

// INVALID_ARGUMENT when the bytes are no command of this version.
absl::StatusOr<Command> DecodeCommand(absl::string_view bytes);

Chunk DecodeChunk(control::Data* data);
void EncodeEvent(const Event& event, control::Event* out);
// One serialized control::Event.
std::string EncodeEvent(const Event& event);

}  // namespace causeway::worker
