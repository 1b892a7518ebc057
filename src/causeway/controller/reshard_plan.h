// Which part of which shard goes where when an array changes its sharding.
//
// A plan knows shards by their place in the sharding's list of devices: neither buffers nor what is
// lost. So it holds for every array of that shape, whatever is in it.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "causeway/model/sharding.h"

namespace causeway::controller {

struct ReshardPlan {
  // Replicas of one part of the array.
  struct Source {
    model::Box box;
    std::vector<int> shards;
  };
  // What a new shard gets of a source.
  struct Part {
    int source = 0;
    bool whole = false;           // the source is the new shard
    std::vector<int64_t> start;   // where it lies in the new shard
    model::Box in_source;         // relative to the source
  };
  struct Target {
    model::Shape dims;
    std::vector<Part> parts;
  };
  std::vector<Source> sources;
  std::vector<Target> targets;  // by shard of the new sharding
};

absl::StatusOr<ReshardPlan> PlanReshard(const model::Shape& shape, const model::Sharding& from,
                                        const model::Sharding& to);

// The plans that were used last. Thread safety: none; the controller's lock guards it.
class ReshardPlans {
 public:
  explicit ReshardPlans(size_t max) : max_(max) {}
  absl::StatusOr<std::shared_ptr<const ReshardPlan>> Get(const model::Shape& shape,
                                                         const model::Sharding& from,
                                                         const model::Sharding& to);
  int64_t made() const { return made_; }
  int64_t reused() const { return reused_; }

 private:
  using Entry = std::pair<std::string, std::shared_ptr<const ReshardPlan>>;
  const size_t max_;
  std::list<Entry> entries_;  // the latest used first
  absl::flat_hash_map<std::string, std::list<Entry>::iterator> by_key_;
  int64_t made_ = 0, reused_ = 0;
};

}  // namespace causeway::controller
