// Statuses on the IFRT wire.
#include "causeway/wire/ifrt_status.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "ifrt_values.pb.h"

namespace causeway::wire {
namespace {

// Known to the client's library; the payload is the decimal id.
constexpr absl::string_view kUserContextUrl = "type.googleapis.com/ifrt.UserContext";

}  // namespace

void StatusToProto(const absl::Status& status, ifrt::StatusProto* proto) {
  proto->set_code(static_cast<int32_t>(status.code()));
  if (status.ok()) return;
  proto->set_message(std::string(status.message()));
  status.ForEachPayload([proto](absl::string_view url, const absl::Cord& value) {
    (*proto->mutable_payload())[std::string(url)] = std::string(value);
  });
}

absl::Status StatusFromProto(const ifrt::StatusProto& proto) {
  if (proto.code() == 0) return absl::OkStatus();
  const bool known = proto.code() > 0 && proto.code() <= 16;
  absl::Status status(known ? static_cast<absl::StatusCode>(proto.code())
                            : absl::StatusCode::kUnknown,
                      proto.message());
  for (const auto& [url, value] : proto.payload()) status.SetPayload(url, absl::Cord(value));
  return status;
}

bool AttachUserContext(uint64_t user_context_id, absl::Status* status) {
  if (status->ok() || user_context_id == 0 || status->GetPayload(kUserContextUrl)) return false;
  status->SetPayload(kUserContextUrl, absl::Cord(absl::StrCat(user_context_id)));
  return true;
}

std::optional<uint64_t> UserContextOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kUserContextUrl);
  uint64_t id = 0;
  if (!payload || !absl::SimpleAtoi(std::string(*payload), &id)) return std::nullopt;
  return id;
}

}  // namespace causeway::wire
