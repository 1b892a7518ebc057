// Pieces that many requests share, from protocol buffers to the runtime's plain values.
//
// Errors: INVALID_ARGUMENT or UNIMPLEMENTED, saying which piece is wrong.
// Thread safety: of the session's read callback (they use its sharding cache).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "causeway/core/runtime.h"
#include "causeway/proxy/session.h"
#include "ifrt_session.pb.h"

namespace causeway::proxy {

using HandleField = google::protobuf::RepeatedField<uint64_t>;

absl::StatusOr<core::ArraySpec> DecodeSpec(Session& session, const ifrt::ArraySpecProto& proto);
absl::StatusOr<std::vector<core::ArraySpec>> DecodeSpecs(
    Session& session, const google::protobuf::RepeatedPtrField<ifrt::ArraySpecProto>& protos);
// A spec from its parts; `dtype` 0 leaves the element type open.
absl::StatusOr<core::ArraySpec> DecodeSpec(Session& session, int32_t dtype,
                                           const ifrt::ShapeProto& shape,
                                           absl::string_view sharding, absl::string_view layout);
absl::StatusOr<model::Shape> DecodeShape(const ifrt::ShapeProto& proto);
absl::StatusOr<core::CopySemantics> DecodeCopy(int32_t value);
absl::StatusOr<std::vector<core::RemapMapping>> DecodeMappings(const ifrt::RemapPlanProto& plan);
std::vector<ArrayHandle> DecodeHandles(const HandleField& field);
std::vector<int64_t> DecodeStrides(const ifrt::ByteStrides& proto);

// The handles under which a request's arrays go: the client's, or fresh ones where it named none.
struct Results {
  std::vector<ArrayHandle> handles;
};
absl::StatusOr<Results> TakeResults(Session& session, const HandleField& wanted, int count);
absl::StatusOr<Results> TakeResult(Session& session, uint64_t wanted);

// Answers with an error that the runtime does not know of yet, after binding it to every handle
// that the client named: the client went on as if the request had succeeded.
void FailBound(Call call, absl::Status status, const HandleField& wanted);
void FailBound(Call call, absl::Status status, uint64_t wanted);

// Answers a request whose reply is a list of arrays, with the handles, whoever chose them: clients up
// to jaxlib 0.8 end their process when their own do not come back. The runtime has bound its own
// errors.
void AnswerList(Call call, const absl::Status& status, const Results& results,
                ifrt::ArrayListReply* (ifrt::IfrtResponse::*member)());
void AnswerOne(Call call, const absl::Status& status, const Results& results,
               ifrt::ArrayReply* (ifrt::IfrtResponse::*member)());

}  // namespace causeway::proxy
