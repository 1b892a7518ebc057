// Device lists, buffers and what became of them.
#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "causeway/base/check.h"
#include "causeway/base/limits.h"
#include "causeway/base/probes.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/controller.h"

namespace causeway::controller {

absl::StatusOr<DeviceListRef> Controller::Intern(const std::vector<DeviceId>& devices) {
  auto it = lists_.find(devices);
  if (it != lists_.end()) return it->second;
  if (devices.empty()) return absl::InvalidArgumentError("a list of devices must not be empty");
  auto list = std::make_shared<DeviceList>();
  absl::flat_hash_set<DeviceId> seen;
  for (DeviceId id : devices) {
    if (!topology_.Contains(id)) {
      return absl::InvalidArgumentError(
          absl::StrCat("there is no device ", id.value(), "; this cluster has devices 0 to ",
                       topology_.devices().size() - 1));
    }
    if (!seen.insert(id).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("device ", id.value(), " is named twice in one list of devices"));
    }
    const WorkerId worker = topology_.WorkerOf(id);
    auto member = std::find_if(list->members.begin(), list->members.end(),
                               [&](const DeviceList::Member& m) { return m.worker == worker; });
    if (member == list->members.end()) {
      list->members.push_back({worker, {}});
      list->workers.push_back(worker);
      member = list->members.end() - 1;
    }
    member->devices.push_back(id);
  }
  list->id = next_id_++;
  list->devices = devices;
  // A cluster sees few lists; a client that invents them endlessly must not fill the head.
  if (lists_.size() >= static_cast<size_t>(limits::kDeviceListsMax) ||
      FAULT_POINT("controller.forget_lists")) {
    lists_.clear();
  }
  lists_.emplace(devices, list);
  return DeviceListRef(list);
}

BufferRef Controller::NewBuffer(DeviceListRef list, model::DType dtype, std::string memory_kind) {
  ++live_buffers_;
  struct CountedBuffer final : Buffer {
    explicit CountedBuffer(Controller* c) : controller(c) {}
    ~CountedBuffer() {
      // Every reference lives in the controller's own tables, so its lock is held here.
      controller->mu_.AssertHeld();
      --controller->live_buffers_;
      controller->live_bytes_ -= bytes;
      if (!freed) controller->graveyard_.emplace_back(id, std::move(list));
    }
    Controller* const controller;
  };
  auto buffer = std::make_shared<CountedBuffer>(this);
  buffer->id = BufferId(next_id_++);
  buffer->list = std::move(list);
  buffer->dtype = dtype;
  buffer->memory_kind = std::move(memory_kind);
  buffer->birth = version_;
  return buffer;
}

void Controller::FreeNow(const BufferRef& buffer) {
  if (buffer->freed) return;
  buffer->freed = true;
  graveyard_.emplace_back(buffer->id, buffer->list);
}

void Controller::FlushFrees() {
  if (graveyard_.empty()) return;
  counters_.buffers_freed += graveyard_.size();
  std::sort(graveyard_.begin(), graveyard_.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->id, a.first) < std::pair(b.second->id, b.first);
  });
  std::vector<BufferId> ids;
  for (size_t i = 0; i < graveyard_.size();) {
    const DeviceListRef list = graveyard_[i].second;
    ids.clear();
    for (; i < graveyard_.size() && graveyard_[i].second == list; ++i) {
      ids.push_back(graveyard_[i].first);
    }
    const wire::Encoded command = wire::EncodeFree(ids);
    for (const DeviceList::Member& member : list->members) {
      WorkerState& worker = State(member.worker);
      if (worker.alive) worker.link->SendSoon(command);
      if (PLANTED("controller.forgets_members")) break;
    }
  }
  graveyard_.clear();
}

bool Controller::PartLost(const Buffer& buffer, WorkerId worker) const {
  const WorkerState& state = workers_[worker.value()];
  if (PLANTED("controller.stale_parts")) return !state.alive;
  if (!state.alive || state.joined_version > buffer.birth) return true;
  return std::any_of(buffer.lost_parts.begin(), buffer.lost_parts.end(),
                     [worker](const auto& part) { return part.first == worker; });
}

absl::Status Controller::PartError(const Buffer& buffer, WorkerId worker) const {
  for (const auto& [where, error] : buffer.lost_parts) {
    if (where == worker) return error;
  }
  return LostError(worker, buffer.birth);
}

void Controller::NoteLostPart(const PendingRequest& request, WorkerId worker,
                              const absl::Status& error) {
  for (const auto& [asked, weak] : request.asked) {
    const BufferRef buffer = asked == worker ? weak.lock() : nullptr;
    if (buffer == nullptr || PartLost(*buffer, worker)) continue;
    REACHED("controller.part_lost_on_a_living_worker");
    buffer->lost_parts.emplace_back(worker, error);
  }
}

absl::Status Controller::LostError(WorkerId id, int64_t birth) const {
  const WorkerState& worker = workers_[id.value()];
  for (const WorkerState::Loss& loss : worker.losses) {
    if (birth >= 0 && loss.version > birth) return loss.error;
  }
  if (!worker.losses.empty()) return worker.losses.back().error;
  return absl::DataLossError(absl::StrCat("slice ", topology_.SliceOf(id), " lost: worker ",
                                          id.value(), ": ", worker.lost_why,
                                          "; start it, or use the devices of other slices"));
}

absl::Status Controller::CheckLoss(const Array& array) const {
  auto check = [this](const Buffer& buffer, WorkerId worker) -> absl::Status {
    return PartLost(buffer, worker) ? PartError(buffer, worker) : absl::OkStatus();
  };
  if (array.whole != nullptr) {
    for (const DeviceList::Member& member : array.list->members) {
      RETURN_IF_ERROR(check(*array.whole, member.worker));
    }
    return absl::OkStatus();
  }
  for (const ShardRef& shard : array.parts) {
    RETURN_IF_ERROR(check(*shard.buffer, topology_.WorkerOf(shard.device)));
  }
  return absl::OkStatus();
}

absl::StatusOr<BufferRef> Controller::Whole(const ArrayRef& array) {
  if (array->whole != nullptr) return array->whole;
  const Buffer& first = *array->parts[0].buffer;
  const bool one_buffer =
      SameDevices(first.list, array->list) &&
      std::all_of(array->parts.begin(), array->parts.end(),
                  [&](const ShardRef& s) { return s.buffer.get() == &first; });
  if (one_buffer) {
    array->whole = array->parts[0].buffer;
    return array->whole;
  }
  // The members put a new local array together that shares the old shards' memory.
  BufferRef whole = NewBuffer(array->list, first.dtype, first.memory_kind);
  whole->birth = first.birth;
  std::vector<core::GateRef> gates;
  absl::flat_hash_map<WorkerId, std::vector<wire::ShardBuild>> shards;
  for (int i = 0; i < array->num_shards(); ++i) {
    const ShardRef& from = array->parts[i];
    whole->birth = std::min(whole->birth, from.buffer->birth);
    whole->mark.Share(from.buffer->mark);
    gates.push_back(from.buffer->gate);
    ASSIGN_OR_RETURN(model::Shape dims, array->spec.sharding->ShardShape(array->spec.shape, i));
    shards[topology_.WorkerOf(from.device)].push_back(
        {from.device, std::move(dims), wire::FromShard{from.buffer->id, from.device, false}});
  }
  whole->gate = core::Gate::Join(gates);
  SendBuild(whole, shards);
  array->whole = whole;
  array->parts.clear();
  return whole;
}

void Controller::SendBuild(const BufferRef& buffer,
                           absl::flat_hash_map<WorkerId, std::vector<wire::ShardBuild>>& shards) {
  for (const DeviceList::Member& member : buffer->list->members) {
    WorkerState& worker = State(member.worker);
    if (!worker.alive) continue;
    auto it = shards.find(member.worker);
    CHECK(it != shards.end()) << "no shards for worker " << member.worker;
    worker.link->Send(wire::EncodeBuild(buffer->id, buffer->dtype, buffer->memory_kind,
                                        buffer->list->devices, it->second));
  }
}

ArrayRef Controller::ErrorArray(absl::Status error) {
  auto array = std::make_shared<Array>();
  array->error = std::move(error);
  return array;
}

void Controller::MarkDeleted(const Array& array) {
  if (array.whole != nullptr) array.whole->mark.Set(true);
  for (const ShardRef& shard : array.parts) shard.buffer->mark.Set(true);
}

core::GateRef Controller::GateOf(const Array& array) {
  if (array.whole != nullptr) return array.whole->gate;
  std::vector<core::GateRef> gates;
  for (const ShardRef& shard : array.parts) gates.push_back(shard.buffer->gate);
  return core::Gate::Join(gates);
}

}  // namespace causeway::controller
