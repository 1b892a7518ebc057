// Arrays from a client's bytes. The bytes may still be under way on another channel.
#include <map>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "causeway/base/status_macros.h"
#include "causeway/proxy/handlers.h"
#include "causeway/proxy/request_codec.h"
#include "causeway/wire/ifrt_status.h"
#include "causeway/wire/ifrt_values.h"

namespace causeway::proxy {
namespace {

// Claims every buffer of a request once, before anything can fail: a request consumes its buffers
// whatever becomes of it.
using Claims = std::map<uint64_t, std::shared_ptr<core::HostBytes>>;

absl::Status DecodeOne(Session& session, const ifrt::MakeArrayFromHostBufferRequest& request,
                       std::shared_ptr<core::HostBytes> bytes, core::ArraySpec* spec,
                       std::vector<core::HostShards>* sources) {
  ASSIGN_OR_RETURN(std::string layout, wire::ParseLayout(request.layout()));
  ASSIGN_OR_RETURN(*spec, DecodeSpec(session, request.dtype().kind(), request.shape(),
                                     request.sharding(), layout));
  core::HostShards source;
  source.shard_indices.resize(spec->sharding->num_shards());
  std::iota(source.shard_indices.begin(), source.shard_indices.end(), 0);
  source.shape = spec->shape;
  if (request.has_byte_strides()) source.byte_strides = DecodeStrides(request.byte_strides());
  source.holds_whole_array = true;
  source.bytes = std::move(bytes);
  sources->push_back(std::move(source));
  return absl::OkStatus();
}

absl::Status DecodeShards(Session& session, const ifrt::MakeArraysFromShardsRequest::Spec& proto,
                          const Claims& claims, core::ArraySpec* spec,
                          std::vector<core::HostShards>* sources) {
  ASSIGN_OR_RETURN(*spec, DecodeSpec(session, proto.array_spec()));
  if (proto.host_buffers_size() != proto.addressable_shard_indices_size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the request lists ", proto.host_buffers_size(), " host buffers for ",
        proto.addressable_shard_indices_size(), " lists of shards; the lists must be parallel"));
  }
  for (int i = 0; i < proto.host_buffers_size(); ++i) {
    const auto& buffer = proto.host_buffers(i);
    core::HostShards source;
    for (int64_t index : proto.addressable_shard_indices(i).indices()) {
      if (index < 0 || index >= spec->sharding->num_shards()) {
        return absl::InvalidArgumentError(
            absl::StrCat("shard ", index, " of an array with ", spec->sharding->num_shards(),
                         " shards; indices start at 0"));
      }
      source.shard_indices.push_back(static_cast<int>(index));
    }
    ASSIGN_OR_RETURN(source.shape, DecodeShape(buffer.shape()));
    if (buffer.has_byte_strides()) source.byte_strides = DecodeStrides(buffer.byte_strides());
    source.bytes = claims.at(buffer.host_buffer_handle());
    sources->push_back(std::move(source));
  }
  return absl::OkStatus();
}

}  // namespace

void HandleMakeArray(Call call, const ifrt::MakeArrayFromHostBufferRequest& request) {
  Session& session = call.session();
  std::shared_ptr<core::HostBytes> bytes = session.buffers->Claim(request.host_buffer_handle());
  absl::StatusOr<Results> results = TakeResult(session, request.array_handle());
  core::ArraySpec spec;
  std::vector<core::HostShards> sources;
  absl::Status status = results.status();
  if (status.ok()) status = DecodeOne(session, request, std::move(bytes), &spec, &sources);
  if (!status.ok()) return FailBound(std::move(call), std::move(status), request.array_handle());
  status = session.runtime().MakeArray(session.id, results->handles.front(), std::move(spec),
                                       std::move(sources));
  AnswerOne(std::move(call), status, *results,
            &ifrt::IfrtResponse::mutable_make_array_from_host_buffer_response);
}

void HandleMakeArraysFromShards(Call call, const ifrt::MakeArraysFromShardsRequest& request) {
  Session& session = call.session();
  Claims claims;
  for (const auto& spec : request.specs()) {
    for (const auto& buffer : spec.host_buffers()) {
      auto& claim = claims[buffer.host_buffer_handle()];
      if (claim == nullptr) claim = session.buffers->Claim(buffer.host_buffer_handle());
    }
  }
  absl::StatusOr<Results> results =
      TakeResults(session, request.array_handles(), request.specs_size());
  if (!results.ok()) {
    return FailBound(std::move(call), results.status(), request.array_handles());
  }
  // All or nothing, so that the client's arrays fail together if one cannot be read.
  std::vector<std::pair<core::ArraySpec, std::vector<core::HostShards>>> arrays;
  for (const auto& proto : request.specs()) {
    auto& [spec, sources] = arrays.emplace_back();
    if (absl::Status s = DecodeShards(session, proto, claims, &spec, &sources); !s.ok()) {
      return FailBound(std::move(call), std::move(s), request.array_handles());
    }
  }
  absl::Status first_error;
  for (size_t i = 0; i < arrays.size(); ++i) {
    first_error.Update(session.runtime().MakeArray(session.id, results->handles[i],
                                                   std::move(arrays[i].first),
                                                   std::move(arrays[i].second)));
  }
  AnswerList(std::move(call), first_error, *results,
             &ifrt::IfrtResponse::mutable_make_arrays_from_host_buffer_shards_response);
}

void HandleMakeErrorArrays(Call call, const ifrt::MakeErrorArraysRequest& request) {
  Session& session = call.session();
  absl::Status error = wire::StatusFromProto(request.error());
  if (error.ok()) {
    error = absl::InvalidArgumentError("make_error_arrays came without an error; send one");
    return FailBound(std::move(call), std::move(error), request.array_handles());
  }
  absl::StatusOr<Results> results =
      TakeResults(session, request.array_handles(), request.array_specs_size());
  if (!results.ok()) {
    return FailBound(std::move(call), results.status(), request.array_handles());
  }
  session.runtime().MakeErrorArrays(session.id, results->handles, std::move(error));
  AnswerList(std::move(call), absl::OkStatus(), *results,
             &ifrt::IfrtResponse::mutable_make_error_arrays_response);
}

}  // namespace causeway::proxy
