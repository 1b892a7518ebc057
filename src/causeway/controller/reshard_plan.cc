// Intersections of shards, and the table that keeps them.
#include "causeway/controller/reshard_plan.h"

#include <algorithm>

#include "causeway/base/status_macros.h"

namespace causeway::controller {
namespace {

// Appends numbers with their count, so that no two lists look alike.
template <class Numbers>
void Append(const Numbers& numbers, std::string* key) {
  auto add = [key](int64_t value) {
    key->append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  add(static_cast<int64_t>(numbers.size()));
  for (const auto& n : numbers) {
    if constexpr (requires { n.value(); }) {
      add(static_cast<int64_t>(n.value()));
    } else {
      add(static_cast<int64_t>(n));
    }
  }
}

void Append(const model::Sharding& sharding, std::string* key) {
  const model::OpSharding& op = sharding.op_sharding();
  Append(std::vector<int>{static_cast<int>(sharding.kind()), static_cast<int>(op.type),
                          op.replicate_on_last_tile_dim, sharding.fully_replicated()},
         key);
  Append(sharding.devices(), key);
  Append(op.tile_dims, key);
  Append(op.tile_devices, key);
  Append(op.iota_reshape_dims, key);
  Append(op.iota_transpose_perm, key);
  Append(op.last_tile_dims, key);
  Append(sharding.global_shape(), key);
  Append(sharding.shard_shape(), key);
  for (const model::Shape& shape : sharding.shard_shapes()) Append(shape, key);
}

}  // namespace

absl::StatusOr<ReshardPlan> PlanReshard(const model::Shape& shape, const model::Sharding& from,
                                        const model::Sharding& to) {
  ReshardPlan plan;
  for (int i = 0; i < from.num_shards(); ++i) {
    ASSIGN_OR_RETURN(model::Box box, from.ShardBox(shape, i));
    auto it = std::find_if(plan.sources.begin(), plan.sources.end(),
                           [&](const ReshardPlan::Source& s) { return s.box == box; });
    if (it == plan.sources.end()) {
      plan.sources.push_back({std::move(box), {}});
      it = plan.sources.end() - 1;
    }
    it->shards.push_back(i);
  }
  for (int i = 0; i < to.num_shards(); ++i) {
    ASSIGN_OR_RETURN(const model::Box box, to.ShardBox(shape, i));
    ReshardPlan::Target& target = plan.targets.emplace_back();
    target.dims = box.shape();
    for (size_t s = 0; s < plan.sources.size(); ++s) {
      const model::Box& source = plan.sources[s].box;
      if (source == box) {
        target.parts = {{static_cast<int>(s), true, {}, {}}};
        break;
      }
      model::Box common = model::Intersect(source, box);
      if (common.empty()) continue;
      ReshardPlan::Part part{static_cast<int>(s), false, {}, std::move(common)};
      for (size_t d = 0; d < source.start.size(); ++d) {
        part.start.push_back(part.in_source.start[d] - box.start[d]);
        part.in_source.start[d] -= source.start[d];
        part.in_source.limit[d] -= source.start[d];
      }
      target.parts.push_back(std::move(part));
    }
  }
  return plan;
}

absl::StatusOr<std::shared_ptr<const ReshardPlan>> ReshardPlans::Get(const model::Shape& shape,
                                                                     const model::Sharding& from,
                                                                     const model::Sharding& to) {
  std::string key;
  Append(shape, &key);
  Append(from, &key);
  Append(to, &key);
  const auto it = by_key_.find(key);
  if (it != by_key_.end()) {
    ++reused_;
    entries_.splice(entries_.begin(), entries_, it->second);
    return it->second->second;
  }
  ASSIGN_OR_RETURN(ReshardPlan plan, PlanReshard(shape, from, to));
  ++made_;
  entries_.emplace_front(key, std::make_shared<const ReshardPlan>(std::move(plan)));
  by_key_[std::move(key)] = entries_.begin();
  if (entries_.size() > max_) {
    by_key_.erase(entries_.back().first);
    entries_.pop_back();
  }
  return entries_.front().second;
}

}  // namespace causeway::controller
