// The mark on errors that come from a peer's disappearance.
#include "causeway/device/types.h"

#include "absl/strings/cord.h"

namespace causeway::device {
namespace {
constexpr char kPeerFailureUrl[] = "causeway/peer-failure";
}  // namespace

absl::Status PeerFailure(absl::Status status) {
  if (!status.ok()) status.SetPayload(kPeerFailureUrl, absl::Cord("1"));
  return status;
}

bool IsPeerFailure(const absl::Status& status) {
  return status.GetPayload(kPeerFailureUrl).has_value();
}

}  // namespace causeway::device
