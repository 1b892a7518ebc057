// Which protocol versions this server speaks, and what to answer a client.
//
// protocol: the request set and its gates (16 to 25 at present).
// serdes: the encoding of typed objects. Clients refuse to send programs in an encoding older than
// a few weeks before their build, so the maximum here must follow each jaxlib release.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

namespace causeway::proxy {

struct Version {
  int32_t protocol = 0;
  int32_t serdes = 0;
  friend bool operator==(const Version&, const Version&) = default;
};

inline constexpr Version kMinVersion{.protocol = 16, .serdes = 0};
inline constexpr Version kMaxVersion{.protocol = 25, .serdes = 5};
// From here on the outcome of an execution is asked for with FetchExecuteResult.
inline constexpr int32_t kFetchExecuteResultProtocol = 21;

// The newest version that both sides speak, up to `ours`. INVALID_ARGUMENT, naming both ranges, when
// there is none. Pure.
absl::StatusOr<Version> Negotiate(Version client_min, Version client_max,
                                  Version ours = kMaxVersion);
// INVALID_ARGUMENT when a session asks for a version outside this server's range.
absl::Status CheckSupported(Version version, Version ours = kMaxVersion);

}  // namespace causeway::proxy
