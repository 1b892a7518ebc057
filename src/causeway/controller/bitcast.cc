// BitcastArrays: the bytes of every shard as another type or shape.
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"

namespace causeway::controller {
namespace {

// Why the array's shards cannot be read as `to`.
absl::Status CheckBitcast(const core::ArraySpec& from, const core::ArraySpec& to) {
  auto sub_byte = [](model::DType dtype) {
    const absl::string_view name = model::DTypeName(dtype);
    return name == "int1" || name == "uint1" || name == "int2" || name == "uint2" ||
           name == "int4" || name == "uint4" || name == "float4_e2m1fn";
  };
  if (to.sharding->devices() != from.sharding->devices() ||
      !model::SameMemoryKind(to.sharding->memory_kind(), from.sharding->memory_kind())) {
    return absl::InvalidArgumentError("a bitcast keeps the devices, their order and the memory");
  }
  const int64_t old_width = model::HostByteWidth(from.dtype);
  const int64_t new_width = model::HostByteWidth(to.dtype);
  if (old_width <= 0 || new_width <= 0 ||
      (from.dtype != to.dtype && (sub_byte(from.dtype) || sub_byte(to.dtype)))) {
    return absl::InvalidArgumentError(
        absl::StrCat("elements of ", model::DTypeName(from.dtype), " cannot be read as ",
                     model::DTypeName(to.dtype), "; use jax.lax.bitcast_convert_type"));
  }
  for (int i = 0; i < from.sharding->num_shards(); ++i) {
    ASSIGN_OR_RETURN(model::Shape before, from.sharding->ShardShape(from.shape, i));
    ASSIGN_OR_RETURN(model::Shape after, to.sharding->ShardShape(to.shape, i));
    if (model::NumElements(before) * old_width != model::NumElements(after) * new_width) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a bitcast keeps the size of every shard, but shard ", i, " had ",
          model::NumElements(before) * old_width, " bytes and would have ",
          model::NumElements(after) * new_width));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ArrayRef> Controller::Bitcast(const ArrayRef& array, const core::ArraySpec& to) {
  RETURN_IF_ERROR(CheckBitcast(array->spec, to));
  if (absl::Status lost = CheckLoss(*array); !lost.ok()) return ErrorArray(lost);
  auto result = std::make_shared<Array>();
  result->spec = to;
  result->list = array->list;
  BufferRef buffer = NewBuffer(array->list, to.dtype, to.sharding->memory_kind());
  buffer->gate = GateOf(*array);
  absl::flat_hash_map<WorkerId, std::vector<wire::ShardBuild>> shards;
  for (int i = 0; i < array->num_shards(); ++i) {
    // XLA's clients do not let a buffer change its type, so its bytes go by the host's memory.
    const ShardRef from = array->shard(i);
    const WorkerId worker = topology_.WorkerOf(from.device);
    ASSIGN_OR_RETURN(model::Shape dims, to.sharding->ShardShape(to.shape, i));
    buffer->bytes += model::NumElements(dims) * model::HostByteWidth(to.dtype);
    shards[worker].push_back({from.device, std::move(dims),
                              wire::FromTransfer{SendShard(from, worker, std::nullopt)}});
  }
  live_bytes_ += buffer->bytes;
  SendBuild(buffer, shards);
  result->whole = std::move(buffer);
  return result;
}

absl::Status Controller::BitcastArrays(SessionId id, const std::vector<ArrayHandle>& handles,
                                       const std::vector<core::ArraySpec>& outputs,
                                       core::CopySemantics copy,
                                       const std::vector<ArrayHandle>& results) {
  Locked lock(this);
  ASSIGN_OR_RETURN(Session * session, FindSessionFor(id, results.size()));
  absl::Status first;
  if (handles.size() != outputs.size() || handles.size() != results.size()) {
    first = absl::InvalidArgumentError("bitcast: as many outputs and results as inputs, please");
  } else if (copy == core::CopySemantics::kAlwaysCopy) {
    first = absl::InvalidArgumentError("a bitcast cannot be asked to copy; reuse or donate");
  }
  if (!first.ok()) {
    BindError(*session, results, first);
    return first;
  }
  for (size_t k = 0; k < handles.size(); ++k) {
    const absl::StatusOr<ArrayRef> source = FindLiveArray(*session, handles[k]);
    absl::StatusOr<ArrayRef> made = source;
    if (source.ok()) made = Bitcast(*source, outputs[k]);
    first.Update(Deliver(*session, results[k], made));
    if (made.ok() && copy == core::CopySemantics::kDonateInput) Donate(**source, **made);
  }
  return first;
}

}  // namespace causeway::controller
