// Shared decoding of requests and encoding of array replies.
#include "causeway/proxy/request_codec.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/status_macros.h"
#include "causeway/wire/ifrt_values.h"

namespace causeway::proxy {

absl::StatusOr<model::Shape> DecodeShape(const ifrt::ShapeProto& proto) {
  model::Shape shape(proto.dims().begin(), proto.dims().end());
  RETURN_IF_ERROR(model::CheckShape(shape));
  return shape;
}

absl::StatusOr<core::ArraySpec> DecodeSpec(Session& session, int32_t dtype,
                                           const ifrt::ShapeProto& shape,
                                           absl::string_view sharding, absl::string_view layout) {
  core::ArraySpec spec;
  if (dtype != 0) {
    ASSIGN_OR_RETURN(spec.dtype, wire::ParseDType(dtype));
  }
  ASSIGN_OR_RETURN(spec.shape, DecodeShape(shape));
  ASSIGN_OR_RETURN(spec.sharding, session.shardings.Parse(sharding));
  spec.layout = std::string(layout);
  return spec;
}

absl::StatusOr<core::ArraySpec> DecodeSpec(Session& session, const ifrt::ArraySpecProto& proto) {
  return DecodeSpec(session, proto.dtype().kind(), proto.shape(), proto.sharding(),
                    proto.layout());
}

absl::StatusOr<std::vector<core::ArraySpec>> DecodeSpecs(
    Session& session, const google::protobuf::RepeatedPtrField<ifrt::ArraySpecProto>& protos) {
  std::vector<core::ArraySpec> out;
  out.reserve(protos.size());
  for (const auto& proto : protos) {
    ASSIGN_OR_RETURN(core::ArraySpec spec, DecodeSpec(session, proto));
    out.push_back(std::move(spec));
  }
  return out;
}

absl::StatusOr<core::CopySemantics> DecodeCopy(int32_t value) {
  switch (value) {
    case 0:  // left open: the safe reading
    case 1:
      return core::CopySemantics::kAlwaysCopy;
    case 2:
      return core::CopySemantics::kReuseInput;
    case 3:
      return core::CopySemantics::kDonateInput;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "copy semantics ", value, " are not known; send 1 (copy), 2 (reuse) or 3 (donate)"));
}

absl::StatusOr<std::vector<core::RemapMapping>> DecodeMappings(const ifrt::RemapPlanProto& plan) {
  std::vector<core::RemapMapping> out;
  out.reserve(plan.mappings_size());
  for (const auto& proto : plan.mappings()) {
    const int n = proto.from_start_size();
    if (proto.from_end_size() != n || proto.from_step_size() != n || proto.to_start_size() != n ||
        proto.to_end_size() != n || proto.to_step_size() != n) {
      return absl::InvalidArgumentError(
          "a remap plan's interval lists differ in length; they must be parallel");
    }
    core::RemapMapping mapping;
    mapping.in_array = proto.in_array();
    mapping.out_array = proto.out_array();
    for (int i = 0; i < n; ++i) {
      mapping.from.push_back({proto.from_start(i), proto.from_end(i), proto.from_step(i)});
      mapping.to.push_back({proto.to_start(i), proto.to_end(i), proto.to_step(i)});
      if (mapping.from.back().step <= 0 || mapping.to.back().step <= 0) {
        return absl::InvalidArgumentError("a remap plan has a step below 1; steps go forward");
      }
    }
    out.push_back(std::move(mapping));
  }
  return out;
}

std::vector<ArrayHandle> DecodeHandles(const HandleField& field) {
  std::vector<ArrayHandle> out;
  out.reserve(field.size());
  for (uint64_t handle : field) out.emplace_back(handle);
  return out;
}

std::vector<int64_t> DecodeStrides(const ifrt::ByteStrides& proto) {
  return std::vector<int64_t>(proto.strides().begin(), proto.strides().end());
}

absl::StatusOr<Results> TakeResults(Session& session, const HandleField& wanted, int count) {
  Results out;
  out.handles.reserve(count);
  if (wanted.empty()) {
    for (int i = 0; i < count; ++i) {
      out.handles.emplace_back(session.runtime().NewServerHandle(session.id));
    }
    return out;
  }
  if (wanted.size() != count) {
    return absl::InvalidArgumentError(absl::StrCat("the request names ", wanted.size(),
                                                   " results, but makes ", count,
                                                   "; name each result, or none"));
  }
  for (uint64_t handle : wanted) {
    if (!IsClientHandle(handle)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "result handle ", handle, " is not a client's; use 1 to ", kFirstServerHandle - 1));
    }
    out.handles.emplace_back(handle);
  }
  return out;
}

absl::StatusOr<Results> TakeResult(Session& session, uint64_t wanted) {
  HandleField field;
  if (wanted != 0) field.Add(wanted);
  return TakeResults(session, field, 1);
}

void FailBound(Call call, absl::Status status, const HandleField& wanted) {
  status = call.Annotate(std::move(status));
  std::vector<ArrayHandle> bound;
  for (uint64_t handle : wanted) {
    if (IsClientHandle(handle)) bound.emplace_back(handle);
  }
  Session& session = call.session();
  if (!bound.empty()) session.runtime().MakeErrorArrays(session.id, bound, status);
  call.Fail(std::move(status));
}

void FailBound(Call call, absl::Status status, uint64_t wanted) {
  HandleField field;
  field.Add(wanted);
  FailBound(std::move(call), std::move(status), field);
}

void AnswerList(Call call, const absl::Status& status, const Results& results,
                ifrt::ArrayListReply* (ifrt::IfrtResponse::*member)()) {
  if (!status.ok()) return call.Fail(call.Annotate(status));
  ifrt::ArrayListReply* reply = (call.response().*member)();
  for (ArrayHandle handle : results.handles) reply->add_array_handles(handle.value());
  call.Ok();
}

void AnswerOne(Call call, const absl::Status& status, const Results& results,
               ifrt::ArrayReply* (ifrt::IfrtResponse::*member)()) {
  if (!status.ok()) return call.Fail(call.Annotate(status));
  ifrt::ArrayReply* reply = (call.response().*member)();
  reply->set_array_handle(results.handles.front().value());
  call.Ok();
}

}  // namespace causeway::proxy
