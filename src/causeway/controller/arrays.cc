// Array requests that move no bytes: views, assemblies, deletion.
#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/controller.h"
#include "causeway/controller/locked.h"

namespace causeway::controller {
namespace {

absl::Status CheckShardCount(int have, int want) {
  if (have == want) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(have, " shards for a sharding over ", want, " devices"));
}

// Whether shard `i` of `from` can be shard `k` of an array that is to be like `to`.
absl::Status CheckShard(const core::ArraySpec& from, int i, const core::ArraySpec& to, int k) {
  if (from.dtype != to.dtype) {
    return absl::InvalidArgumentError(absl::StrCat(
        "shard ", k, " has elements of ", model::DTypeName(from.dtype), ", the array of ",
        model::DTypeName(to.dtype)));
  }
  if (!model::SameMemoryKind(from.sharding->memory_kind(), to.sharding->memory_kind())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "shard ", k, " lies in memory '", from.sharding->memory_kind(),
        "', but the sharding places it in '", to.sharding->memory_kind(), "'"));
  }
  // A token has nothing in it: JAX makes an array of shape [0] of tokens of shape [].
  if (to.dtype == model::DType::kToken) return absl::OkStatus();
  ASSIGN_OR_RETURN(const model::Shape have, from.sharding->ShardShape(from.shape, i));
  ASSIGN_OR_RETURN(const model::Shape want, to.sharding->ShardShape(to.shape, k));
  if (have != want) {
    return absl::InvalidArgumentError(absl::StrCat(
        "shard ", k, " has the shape [", absl::StrJoin(have, ","), "], but a shard of [",
        absl::StrJoin(to.shape, ","), "] under this sharding has [", absl::StrJoin(want, ","),
        "]"));
  }
  return absl::OkStatus();
}

}  // namespace

void Controller::MakeErrorArrays(SessionId id, const std::vector<ArrayHandle>& results,
                                 absl::Status error) {
  Locked lock(this);
  absl::StatusOr<Session*> session = FindSession(id);
  if (session.ok()) BindError(**session, results, error);
}

absl::Status Controller::Assemble(SessionId id, ArrayHandle result, core::ArraySpec spec,
                                  const std::vector<ArrayHandle>& handles,
                                  core::CopySemantics copy) {
  Locked lock(this);
  ASSIGN_OR_RETURN(Session * session, FindSessionFor(id, 1));
  auto assemble = [&]() -> absl::StatusOr<ArrayRef> {
    mu_.AssertHeld();
    ASSIGN_OR_RETURN(DeviceListRef list, Intern(spec.sharding->devices()));
    RETURN_IF_ERROR(CheckShardCount(handles.size(), list->devices.size()));
    auto array = std::make_shared<Array>();
    array->list = list;
    for (size_t i = 0; i < handles.size(); ++i) {
      ASSIGN_OR_RETURN(ArrayRef part, FindLiveArray(*session, handles[i]));
      RETURN_IF_ERROR(CheckShardCount(part->num_shards(), 1));
      if (spec.dtype == model::DType::kInvalid) spec.dtype = part->spec.dtype;
      ShardRef shard = part->shard(0);
      if (shard.device != list->devices[i]) {
        return absl::InvalidArgumentError(
            absl::StrCat("shard ", i, " lies on device ", shard.device.value(),
                         " but the sharding places it on device ", list->devices[i].value()));
      }
      RETURN_IF_ERROR(CheckShard(part->spec, 0, spec, static_cast<int>(i)));
      array->parts.push_back(std::move(shard));
    }
    array->spec = spec;
    if (copy == core::CopySemantics::kAlwaysCopy) {
      return CopyShards(array, list, spec.sharding->memory_kind(), true);
    }
    return array;
  };
  absl::StatusOr<ArrayRef> array = assemble();
  session->arrays[result] = array.ok() ? *array : ErrorArray(array.status());
  return array.status();
}

absl::Status Controller::Disassemble(SessionId id, ArrayHandle handle,
                                     const std::vector<ArrayHandle>& results,
                                     core::CopySemantics copy) {
  Locked lock(this);
  ASSIGN_OR_RETURN(Session * session, FindSessionFor(id, results.size()));
  auto disassemble = [&]() -> absl::Status {
    mu_.AssertHeld();
    ASSIGN_OR_RETURN(ArrayRef array, FindLiveArray(*session, handle));
    RETURN_IF_ERROR(CheckShardCount(results.size(), array->num_shards()));
    for (int i = 0; i < array->num_shards(); ++i) {
      auto view = std::make_shared<Array>();
      const ShardRef shard = array->shard(i);
      ASSIGN_OR_RETURN(view->list, Intern({shard.device}));
      ASSIGN_OR_RETURN(view->spec.shape, array->spec.sharding->ShardShape(array->spec.shape, i));
      view->spec.dtype = array->spec.dtype;
      view->spec.layout = array->spec.layout;
      view->spec.sharding =
          model::Sharding::SingleDevice(shard.device, array->spec.sharding->memory_kind());
      view->parts.push_back(shard);
      if (copy == core::CopySemantics::kAlwaysCopy) {
        ASSIGN_OR_RETURN(
            view, CopyShards(view, view->list, view->spec.sharding->memory_kind(), true));
      }
      session->arrays[results[i]] = std::move(view);
    }
    return absl::OkStatus();
  };
  const absl::Status status = disassemble();
  if (!status.ok()) BindError(*session, results, status);
  return status;
}

absl::StatusOr<int> Controller::NumShards(SessionId id, ArrayHandle handle) {
  Locked lock(this);
  ASSIGN_OR_RETURN(Session * session, FindSession(id));
  ASSIGN_OR_RETURN(ArrayRef array, FindArray(*session, handle));
  return array->num_shards();
}

absl::Status Controller::FullyReplicatedShard(SessionId id, ArrayHandle handle, ArrayHandle result,
                                              core::CopySemantics copy) {
  Locked lock(this);
  ASSIGN_OR_RETURN(Session * session, FindSessionFor(id, 1));
  auto view_of = [&]() -> absl::StatusOr<ArrayRef> {
    mu_.AssertHeld();
    ASSIGN_OR_RETURN(ArrayRef array, FindLiveArray(*session, handle));
    // The first device's shard, or the first that is still there.
    int pick = 0;
    if (array->spec.sharding->fully_replicated()) {
      for (int i = 0; i < array->num_shards(); ++i) {
        const ShardRef shard = array->shard(i);
        if (!PartLost(*shard.buffer, topology_.WorkerOf(shard.device))) {
          pick = i;
          break;
        }
      }
    }
    auto view = std::make_shared<Array>();
    const ShardRef shard = array->shard(pick);
    ASSIGN_OR_RETURN(view->list, Intern({shard.device}));
    view->spec = array->spec;
    ASSIGN_OR_RETURN(view->spec.shape, array->spec.sharding->ShardShape(array->spec.shape, pick));
    view->spec.sharding =
        model::Sharding::SingleDevice(shard.device, array->spec.sharding->memory_kind());
    view->parts.push_back(shard);
    if (copy == core::CopySemantics::kAlwaysCopy) {
      return CopyShards(view, view->list, view->spec.sharding->memory_kind(), true);
    }
    return view;
  };
  absl::StatusOr<ArrayRef> view = view_of();
  session->arrays[result] = view.ok() ? *view : ErrorArray(view.status());
  return view.status();
}

absl::Status Controller::RemapArrays(SessionId id, const std::vector<ArrayHandle>& handles,
                                     const std::vector<core::ArraySpec>& outputs,
                                     const std::vector<core::RemapMapping>& mappings,
                                     core::CopySemantics copy,
                                     const std::vector<ArrayHandle>& results) {
  Locked lock(this);
  ASSIGN_OR_RETURN(Session * session, FindSessionFor(id, results.size()));
  auto remap = [&]() -> absl::Status {
    mu_.AssertHeld();
    RETURN_IF_ERROR(CheckShardCount(results.size(), outputs.size()));
    std::vector<ArrayRef> inputs;
    for (ArrayHandle handle : handles) {
      ASSIGN_OR_RETURN(ArrayRef input, FindLiveArray(*session, handle));
      inputs.push_back(std::move(input));
    }
    std::vector<ArrayRef> made;
    for (const core::ArraySpec& spec : outputs) {
      auto array = std::make_shared<Array>();
      array->spec = spec;
      ASSIGN_OR_RETURN(array->list, Intern(spec.sharding->devices()));
      array->parts.resize(array->list->devices.size());
      made.push_back(std::move(array));
    }
    const absl::Status bad = absl::InvalidArgumentError("remap plan: a mapping is out of range");
    for (const core::RemapMapping& m : mappings) {
      if (m.in_array < 0 || m.in_array >= inputs.size() || m.out_array < 0 ||
          m.out_array >= made.size() || m.from.size() != m.to.size()) {
        return bad;
      }
      const Array& from = *inputs[m.in_array];
      Array& to = *made[m.out_array];
      for (size_t k = 0; k < m.from.size(); ++k) {
        const core::ShardInterval &a = m.from[k], &b = m.to[k];
        if (a.step <= 0 || b.step <= 0) return bad;
        int64_t i = a.start, j = b.start;
        for (; i < a.end && j < b.end;) {
          if (i < 0 || i >= from.num_shards() || j < 0 || j >= to.num_shards()) return bad;
          RETURN_IF_ERROR(CheckShard(from.spec, static_cast<int>(i), to.spec,
                                     static_cast<int>(j)));
          to.parts[j] = from.shard(i);
          if (to.parts[j].device != to.list->devices[j]) {
            return absl::InvalidArgumentError(
                "remap plan: a shard would change its device; use a copy for that");
          }
          if (a.step >= a.end - i || b.step >= b.end - j) break;
          i += a.step;
          j += b.step;
        }
      }
    }
    for (ArrayRef& array : made) {
      for (const ShardRef& part : array->parts) {
        if (part.buffer == nullptr) {
          return absl::InvalidArgumentError("remap plan: an output shard has no source");
        }
      }
      if (copy == core::CopySemantics::kAlwaysCopy) {
        ASSIGN_OR_RETURN(array, CopyShards(array, array->list,
                                           array->spec.sharding->memory_kind(), true));
      }
    }
    for (size_t i = 0; i < made.size(); ++i) session->arrays[results[i]] = made[i];
    return absl::OkStatus();
  };
  const absl::Status status = remap();
  if (!status.ok()) BindError(*session, results, status);
  return status;
}

absl::Status Controller::Delete(SessionId id, const std::vector<ArrayHandle>& handles) {
  Locked lock(this);
  ASSIGN_OR_RETURN(Session * session, FindSession(id));
  absl::Status first;
  for (ArrayHandle handle : handles) {
    auto it = session->arrays.find(handle);
    if (it == session->arrays.end()) {
      if (first.ok()) {
        first = absl::InvalidArgumentError(
            absl::StrCat("there is no array with handle ", handle.value(), " to delete"));
      }
      continue;
    }
    // An array without a value has nothing to free; deleting it is fine.
    if (!it->second->error.ok()) continue;
    MarkDeleted(*it->second);
    if (it->second->whole != nullptr) FreeNow(it->second->whole);
    for (const ShardRef& shard : it->second->parts) FreeNow(shard.buffer);
  }
  return first;
}

absl::StatusOr<bool> Controller::IsDeleted(SessionId id, ArrayHandle handle) {
  Locked lock(this);
  ASSIGN_OR_RETURN(Session * session, FindSession(id));
  ASSIGN_OR_RETURN(ArrayRef array, FindArray(*session, handle));
  return array->deleted();
}

absl::Status Controller::Destruct(SessionId id, const std::vector<ArrayHandle>& handles) {
  Locked lock(this);
  ASSIGN_OR_RETURN(Session * session, FindSession(id));
  std::vector<uint64_t> unknown;
  for (ArrayHandle handle : handles) {
    if (session->arrays.erase(handle) == 0) unknown.push_back(handle.value());
  }
  if (unknown.empty()) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("these array handles are not of this session: ",
                                          absl::StrJoin(unknown, ", ")));
}

}  // namespace causeway::controller
