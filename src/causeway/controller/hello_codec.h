// What a worker says first on a connection.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "causeway/core/worker_link.h"

namespace causeway::controller {

struct Greeting {
  core::WorkerHello hello;
  std::string token;  // on a bulk connection: of the attachment it belongs to
};

// Of a serialized Event. INVALID_ARGUMENT when that is not Hello.
absl::StatusOr<Greeting> DecodeGreeting(absl::string_view event);

}  // namespace causeway::controller
