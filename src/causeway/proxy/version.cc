// Version agreement with clients.
#include "causeway/proxy/version.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "causeway/base/status_macros.h"

namespace causeway::proxy {
namespace {

absl::StatusOr<int32_t> Pick(absl::string_view what, int32_t ours_min, int32_t ours_max,
                             int32_t theirs_min, int32_t theirs_max) {
  const int32_t picked = std::min(ours_max, theirs_max);
  if (picked < ours_min || picked < theirs_min) {
    return absl::InvalidArgumentError(absl::StrCat(
        "no common ", what, " version: the client speaks ", theirs_min, " to ", theirs_max,
        ", this server ", ours_min, " to ", ours_max,
        "; use a jaxlib whose versions overlap, or update Causeway"));
  }
  return picked;
}

}  // namespace

absl::StatusOr<Version> Negotiate(Version client_min, Version client_max, Version ours) {
  Version version;
  ASSIGN_OR_RETURN(version.protocol, Pick("protocol", kMinVersion.protocol, ours.protocol,
                                          client_min.protocol, client_max.protocol));
  ASSIGN_OR_RETURN(version.serdes, Pick("serialization", kMinVersion.serdes, ours.serdes,
                                        client_min.serdes, client_max.serdes));
  return version;
}

absl::Status CheckSupported(Version version, Version ours) {
  return Negotiate(version, version, ours).status();
}

}  // namespace causeway::proxy
