// absl::Status to and from the wire's StatusProto, with its payloads.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"

namespace causeway::ifrt {
class StatusProto;
}  // namespace causeway::ifrt

namespace causeway::wire {

void StatusToProto(const absl::Status& status, ifrt::StatusProto* proto);
// A code outside absl's range becomes UNKNOWN.
absl::Status StatusFromProto(const ifrt::StatusProto& proto);

// Names the client-side stack that caused an error, so that the client can print it. An error that
// names one already keeps it: the first cause counts. OK and id 0 are left alone. Returns whether
// the id was attached.
bool AttachUserContext(uint64_t user_context_id, absl::Status* status);
std::optional<uint64_t> UserContextOf(const absl::Status& status);

}  // namespace causeway::wire
