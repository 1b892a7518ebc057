// What is left of an array after a loss: a live shard for every part of it, or the cause.
#include <algorithm>
#include <utility>

#include "causeway/base/probes.h"
#include "causeway/base/status_macros.h"
#include "causeway/controller/controller.h"

namespace causeway::controller {

absl::StatusOr<std::vector<ShardRef>> Controller::LiveShards(const Array& array) const {
  std::vector<ShardRef> shards;
  absl::Status lost;
  for (int i = 0; i < array.num_shards(); ++i) {
    shards.push_back(array.shard(i));
    const WorkerId worker = topology_.WorkerOf(shards[i].device);
    if (!PartLost(*shards[i].buffer, worker)) continue;
    if (lost.ok()) lost = PartError(*shards[i].buffer, worker);
    shards[i].buffer = nullptr;
  }
  if (lost.ok()) return shards;
  std::vector<model::Box> boxes;
  for (int i = 0; i < array.num_shards(); ++i) {
    ASSIGN_OR_RETURN(model::Box box, array.spec.sharding->ShardBox(array.spec.shape, i));
    boxes.push_back(std::move(box));
  }
  std::vector<ShardRef> replicas = shards;
  for (size_t i = 0; i < shards.size(); ++i) {
    if (shards[i].buffer != nullptr) continue;
    size_t j = 0;
    while (j < shards.size() &&
           (shards[j].buffer == nullptr ||
            (boxes[j] != boxes[i] && !PLANTED("controller.any_shard_is_a_replica")))) {
      ++j;
    }
    if (j == shards.size()) return lost;
    replicas[i] = shards[j];
  }
  return replicas;
}

int64_t Controller::CountArraysOn(WorkerId worker) const {
  absl::flat_hash_map<const DeviceList*, bool> member;
  auto on_worker = [&](const DeviceList& list) {
    auto [it, is_new] = member.try_emplace(&list, false);
    if (is_new) {
      it->second = std::any_of(list.members.begin(), list.members.end(),
                               [&](const DeviceList::Member& m) { return m.worker == worker; });
    }
    return it->second;
  };
  int64_t count = 0;
  for (const auto& [id, session] : sessions_) {
    for (const auto& [handle, array] : session->arrays) {
      if (array->list != nullptr && on_worker(*array->list)) ++count;
    }
  }
  return count;
}

}  // namespace causeway::controller
