// Copies and reshards between devices: which bytes move from which worker to which.
#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"

namespace causeway::controller {

TransferId Controller::NewTransfer(WorkerId source) {
  ++counters_.transfers;
  return TransferId((static_cast<uint64_t>(source.value() + 1) << 48) | next_id_++);
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
    const ShardRef& from = (*live)[i];
    const DeviceId device = to->devices[i];
    const WorkerId source = topology_.WorkerOf(from.device);
    const WorkerId target = topology_.WorkerOf(device);
    ASSIGN_OR_RETURN(model::Shape dims, array->spec.sharding->ShardShape(array->spec.shape, i));
    buffer->bytes += model::NumElements(dims) * element_bytes;
    wire::ShardBuild shard{device, std::move(dims), wire::FromTransfer{}};
    if (source == target) {
      const bool alias = from.device == device && same_memory && !always;
      shard.source = wire::FromShard{from.buffer->id, from.device, !alias};
      if (alias) {
        buffer->deleted_marks.insert(buffer->deleted_marks.end(),
                                     from.buffer->deleted_marks.begin(),
                                     from.buffer->deleted_marks.end());
      }
    } else {
      const TransferId transfer = NewTransfer(source);
      State(source).link->Send(
          wire::EncodeSend(transfer, from.buffer->id, from.device, target, std::nullopt));
      shard.source = wire::FromTransfer{transfer};
    }
    shards[target].push_back(std::move(shard));
  }
  live_bytes_ += buffer->bytes;
  SendBuild(buffer, shards);
  result->whole = std::move(buffer);
  return result;
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
    absl::StatusOr<ArrayRef> made = make();
    session->arrays[results[k]] = made.ok() ? *made : ErrorArray(made.status());
    if (made.ok()) MarkBuffer(*session, (*made)->whole);
    if (!made.ok() && first.ok()) first = made.status();
    if (made.ok() && copy == core::CopySemantics::kDonateInput && (*made)->whole != nullptr &&
        (*made)->whole != source->whole && (*made)->error.ok()) {
      // The result must survive the donation of what it shares with its source.
      auto fresh = std::make_shared<bool>(false);
      (*made)->whole->deleted_marks = {fresh};
      MarkDeleted(*source);
      if (source->whole != nullptr) FreeNow(source->whole);
    }
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
  // Replicas of one part of the array stand together.
  struct Source {
    model::Box box;
    std::vector<ShardRef> replicas;
  };
  std::vector<Source> sources;
  for (int i = 0; i < array->num_shards(); ++i) {
    ASSIGN_OR_RETURN(model::Box box, array->spec.sharding->ShardBox(to.shape, i));
    auto it = std::find_if(sources.begin(), sources.end(),
                           [&](const Source& s) { return s.box == box; });
    if (it == sources.end()) {
      sources.push_back({std::move(box), {}});
      it = sources.end() - 1;
    }
    it->replicas.push_back((*live)[i]);
  }
  auto result = std::make_shared<Array>();
  result->spec = to;
  result->list = list;
  BufferRef buffer = NewBuffer(list, to.dtype, to.sharding->memory_kind());
  buffer->gate = GateOf(*array);
  const bool same_memory =
      model::SameMemoryKind(to.sharding->memory_kind(), array->spec.sharding->memory_kind());
  const int64_t element_bytes = std::max<int64_t>(0, model::HostByteWidth(to.dtype));
  absl::flat_hash_map<WorkerId, std::vector<wire::ShardBuild>> shards;
  size_t spread = 0;
  for (size_t i = 0; i < list->devices.size(); ++i) {
    const DeviceId device = list->devices[i];
    const WorkerId target = topology_.WorkerOf(device);
    ASSIGN_OR_RETURN(model::Box box, to.sharding->ShardBox(to.shape, static_cast<int>(i)));
    buffer->bytes += box.num_elements() * element_bytes;
    wire::ShardBuild shard{device, box.shape(), wire::FromPieces{}};
    wire::FromPieces pieces;
    bool done = false;
    for (const Source& source : sources) {
      const model::Box part = model::Intersect(source.box, box);
      if (part.empty() && !box.empty()) continue;
      // The nearest replica: on the device itself, on its worker, else spread over the others.
      const ShardRef* from = &source.replicas[spread++ % source.replicas.size()];
      for (const ShardRef& replica : source.replicas) {
        if (topology_.WorkerOf(replica.device) == target &&
            (from->device != device || replica.device == device)) {
          from = &replica;
        }
      }
      const WorkerId worker = topology_.WorkerOf(from->device);
      if (source.box == box) {
        if (worker == target) {
          const bool alias = from->device == device && same_memory && !always;
          shard.source = wire::FromShard{from->buffer->id, from->device, !alias};
          if (alias) {
            buffer->deleted_marks.insert(buffer->deleted_marks.end(),
                                         from->buffer->deleted_marks.begin(),
                                         from->buffer->deleted_marks.end());
          }
        } else {
          const TransferId transfer = NewTransfer(worker);
          State(worker).link->Send(
              wire::EncodeSend(transfer, from->buffer->id, from->device, target, std::nullopt));
          shard.source = wire::FromTransfer{transfer};
        }
        done = true;
        break;
      }
      wire::PieceBuild piece;
      model::Box in_source = part;
      for (size_t d = 0; d < part.start.size(); ++d) {
        piece.start.push_back(part.start[d] - box.start[d]);
        in_source.start[d] -= source.box.start[d];
        in_source.limit[d] -= source.box.start[d];
      }
      piece.dims = part.shape();
      if (worker == target) {
        piece.buffer = from->buffer->id;
        piece.device = from->device;
        piece.source_start = in_source.start;
      } else {
        piece.transfer = NewTransfer(worker);
        State(worker).link->Send(
            wire::EncodeSend(piece.transfer, from->buffer->id, from->device, target, in_source));
      }
      pieces.pieces.push_back(std::move(piece));
    }
    if (!done) shard.source = std::move(pieces);
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
  absl::StatusOr<ArrayRef> made = FindLiveArray(session, handle);
  const absl::StatusOr<ArrayRef> source = made;
  if (made.ok()) made = Reshard(*made, to, copy == core::CopySemantics::kAlwaysCopy);
  session.arrays[result] = made.ok() ? *made : ErrorArray(made.status());
  if (made.ok()) MarkBuffer(session, (*made)->whole);
  if (made.ok() && (*made)->error.ok() && copy == core::CopySemantics::kDonateInput) {
    (*made)->whole->deleted_marks = {std::make_shared<bool>(false)};
    MarkDeleted(**source);
    if ((*source)->whole != nullptr) FreeNow((*source)->whole);
  }
  return made.status();
}

}  // namespace causeway::controller
