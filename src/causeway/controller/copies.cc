// Copies and reshards between devices: which bytes move from which worker to which.
#include <algorithm>
#include <memory>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"

namespace causeway::controller {

TransferId Controller::SendShard(const ShardRef& from, WorkerId to,
                                 const std::optional<model::Box>& box) {
  const WorkerId source = topology_.WorkerOf(from.device);
  ++counters_.transfers;
  const TransferId transfer((static_cast<uint64_t>(source.value() + 1) << 48) | next_id_++);
  TellNodes(State(source));
  State(source).link->Send(wire::EncodeSend(transfer, from.buffer->id, from.device, to, box));
  return transfer;
}

decltype(wire::ShardBuild::source) Controller::WholeShard(const ShardRef& from, DeviceId to,
                                                          bool may_alias, Buffer& buffer) {
  const WorkerId target = topology_.WorkerOf(to);
  if (topology_.WorkerOf(from.device) != target) {
    return wire::FromTransfer{SendShard(from, target, std::nullopt)};
  }
  const bool alias = may_alias && from.device == to;
  if (alias) buffer.mark.Share(from.buffer->mark);
  return wire::FromShard{from.buffer->id, from.device, !alias};
}

absl::StatusOr<ArrayRef> Controller::CopyShards(const ArrayRef& array, const DeviceListRef& to,
                                                const std::string& memory_kind, bool always) {
  if (to->devices.size() != array->list->devices.size()) {
    return absl::InvalidArgumentError(absl::StrCat("a copy of ", array->list->devices.size(),
                                                   " shards to ", to->devices.size(), " devices"));
  }
  auto result = std::make_shared<Array>();
  result->list = to;
  result->spec = array->spec;
  result->spec.sharding = array->spec.sharding->WithDevices(to->devices, memory_kind);
  const bool same_memory =
      model::SameMemoryKind(memory_kind, array->spec.sharding->memory_kind());
  if (!always && same_memory && SameDevices(to, array->list)) {
    result->whole = array->whole;
    result->parts = array->parts;
    return result;
  }
  const absl::StatusOr<std::vector<ShardRef>> live = LiveShards(*array);
  if (!live.ok()) return ErrorArray(live.status());
  for (const DeviceList::Member& member : to->members) {
    if (!State(member.worker).alive) return ErrorArray(LostError(member.worker));
  }
  BufferRef buffer = NewBuffer(to, array->spec.dtype, memory_kind);
  buffer->gate = GateOf(*array);
  absl::flat_hash_map<WorkerId, std::vector<wire::ShardBuild>> shards;
  const int64_t element_bytes = std::max<int64_t>(0, model::HostByteWidth(array->spec.dtype));
  for (int i = 0; i < array->num_shards(); ++i) {
    const DeviceId device = to->devices[i];
    ASSIGN_OR_RETURN(model::Shape dims, array->spec.sharding->ShardShape(array->spec.shape, i));
    buffer->bytes += model::NumElements(dims) * element_bytes;
    shards[topology_.WorkerOf(device)].push_back(
        {device, std::move(dims), WholeShard((*live)[i], device, same_memory && !always, *buffer)});
  }
  live_bytes_ += buffer->bytes;
  SendBuild(buffer, shards);
  result->whole = std::move(buffer);
  return result;
}

absl::Status Controller::Deliver(Session& session, ArrayHandle handle,
                                 const absl::StatusOr<ArrayRef>& made) {
  session.arrays[handle] = made.ok() ? *made : ErrorArray(made.status());
  if (made.ok()) MarkBuffer(session, (*made)->whole);
  return made.status();
}

void Controller::Donate(const Array& source, Array& result) {
  if (!result.error.ok() || result.whole == nullptr || result.whole == source.whole) return;
  // The result must survive the donation of what it shares with its source.
  result.whole->mark.Unshare();
  MarkDeleted(source);
  if (source.whole != nullptr) FreeNow(source.whole);
}

absl::Status Controller::CopyArrays(SessionId id, const std::vector<ArrayHandle>& handles,
                                    const std::vector<DeviceId>& devices,
                                    const std::optional<std::string>& memory_kind,
                                    core::CopySemantics copy,
                                    const std::vector<ArrayHandle>& results) {
  Locked lock(this);
  ASSIGN_OR_RETURN(Session * session, FindSessionFor(id, results.size()));
  absl::Status first;
  for (size_t k = 0; k < handles.size() && k < results.size(); ++k) {
    ArrayRef source;
    auto make = [&]() -> absl::StatusOr<ArrayRef> {
      mu_.AssertHeld();
      ASSIGN_OR_RETURN(source, FindLiveArray(*session, handles[k]));
      DeviceListRef to = source->list;
      if (!devices.empty()) {
        ASSIGN_OR_RETURN(to, Intern(devices));
      }
      return CopyShards(source, to,
                        memory_kind.has_value() ? *memory_kind
                                                : source->spec.sharding->memory_kind(),
                        copy == core::CopySemantics::kAlwaysCopy);
    };
    const absl::StatusOr<ArrayRef> made = make();
    first.Update(Deliver(*session, results[k], made));
    if (made.ok() && copy == core::CopySemantics::kDonateInput) Donate(*source, **made);
  }
  return first;
}

absl::StatusOr<ArrayRef> Controller::Reshard(const ArrayRef& array, const core::ArraySpec& to,
                                             bool always) {
  if (to.shape != array->spec.shape || to.dtype != array->spec.dtype) {
    return absl::InvalidArgumentError("a reshard must keep the element type and the shape");
  }
  ASSIGN_OR_RETURN(DeviceListRef list, Intern(to.sharding->devices()));
  const absl::StatusOr<std::vector<ShardRef>> live = LiveShards(*array);
  if (!live.ok()) return ErrorArray(live.status());
  for (const DeviceList::Member& member : list->members) {
    if (!State(member.worker).alive) return ErrorArray(LostError(member.worker));
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<const ReshardPlan> plan,
                   reshard_plans_.Get(to.shape, *array->spec.sharding, *to.sharding));
  auto result = std::make_shared<Array>();
  result->spec = to;
  result->list = list;
  BufferRef buffer = NewBuffer(list, to.dtype, to.sharding->memory_kind());
  buffer->gate = GateOf(*array);
  const bool may_alias = !always && model::SameMemoryKind(to.sharding->memory_kind(),
                                                          array->spec.sharding->memory_kind());
  const int64_t element_bytes = std::max<int64_t>(0, model::HostByteWidth(to.dtype));
  absl::flat_hash_map<WorkerId, std::vector<wire::ShardBuild>> shards;
  size_t spread = 0;
  for (size_t i = 0; i < list->devices.size(); ++i) {
    const DeviceId device = list->devices[i];
    const WorkerId target = topology_.WorkerOf(device);
    const ReshardPlan::Target& wanted = plan->targets[i];
    buffer->bytes += model::NumElements(wanted.dims) * element_bytes;
    wire::ShardBuild shard{device, wanted.dims, wire::FromPieces{}};
    for (const ReshardPlan::Part& part : wanted.parts) {
      // The nearest replica: on the device itself, on its worker, else spread over the others.
      const std::vector<int>& replicas = plan->sources[part.source].shards;
      const ShardRef* from = &(*live)[replicas[spread++ % replicas.size()]];
      for (const int r : replicas) {
        const ShardRef& replica = (*live)[r];
        if (topology_.WorkerOf(replica.device) == target &&
            (from->device != device || replica.device == device)) {
          from = &replica;
        }
      }
      if (part.whole) {
        shard.source = WholeShard(*from, device, may_alias, *buffer);
        break;
      }
      wire::PieceBuild piece;
      piece.start = part.start;
      piece.dims = part.in_source.shape();
      if (topology_.WorkerOf(from->device) == target) {
        piece.buffer = from->buffer->id;
        piece.device = from->device;
        piece.source_start = part.in_source.start;
      } else {
        piece.transfer = SendShard(*from, target, part.in_source);
      }
      std::get<wire::FromPieces>(shard.source).pieces.push_back(std::move(piece));
    }
    shards[target].push_back(std::move(shard));
  }
  live_bytes_ += buffer->bytes;
  SendBuild(buffer, shards);
  result->whole = std::move(buffer);
  return result;
}

absl::Status Controller::ReshardArrays(SessionId id, const std::vector<ArrayHandle>& handles,
                                       const std::vector<core::ArraySpec>& outputs,
                                       core::CopySemantics copy,
                                       const std::vector<ArrayHandle>& results) {
  Locked lock(this);
  ASSIGN_OR_RETURN(Session * session, FindSessionFor(id, results.size()));
  absl::Status first;
  if (handles.size() != outputs.size() || handles.size() != results.size()) {
    first = absl::InvalidArgumentError("reshard: as many outputs and results as inputs, please");
    BindError(*session, results, first);
    return first;
  }
  for (size_t k = 0; k < handles.size(); ++k) {
    first.Update(ReshardInto(*session, handles[k], outputs[k], copy, results[k]));
  }
  return first;
}

absl::Status Controller::ReshardInto(Session& session, ArrayHandle handle,
                                     const core::ArraySpec& to, core::CopySemantics copy,
                                     ArrayHandle result) {
  const absl::StatusOr<ArrayRef> source = FindLiveArray(session, handle);
  absl::StatusOr<ArrayRef> made = source;
  if (source.ok()) made = Reshard(*source, to, copy == core::CopySemantics::kAlwaysCopy);
  RETURN_IF_ERROR(Deliver(session, result, made));
  if (copy == core::CopySemantics::kDonateInput) Donate(**source, **made);
  return absl::OkStatus();
}

}  // namespace causeway::controller
