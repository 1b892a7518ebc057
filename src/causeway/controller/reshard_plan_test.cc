// Plans of resharding: every element goes where it belongs, and a plan is made once.
#include "causeway/controller/reshard_plan.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace causeway::controller {
namespace {

std::vector<DeviceId> Devices(int n, int first) {
  std::vector<DeviceId> devices;
  for (int i = 0; i < n; ++i) devices.push_back(DeviceId(first + i));
  return devices;
}

model::ShardingRef Tiled(std::vector<int64_t> dims, int first = 0, bool replicate = false,
                         std::vector<int64_t> order = {}) {
  model::OpSharding op;
  op.type = model::OpSharding::Type::kOther;
  int n = 1;
  for (const int64_t d : dims) n *= static_cast<int>(d);
  op.tile_dims = std::move(dims);
  op.tile_devices = std::move(order);
  op.replicate_on_last_tile_dim = replicate;
  auto sharding = model::Sharding::Hlo(Devices(n, first), "device", std::move(op));
  EXPECT_TRUE(sharding.ok()) << sharding.status();
  return *sharding;
}

// Does with numbers what the workers do with bytes: each element's new shard has to get its own.
void Check(const model::Shape& shape, const model::ShardingRef& from,
           const model::ShardingRef& to) {
  auto plan = PlanReshard(shape, *from, *to);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->targets.size(), to->devices().size());
  for (int i = 0; i < to->num_shards(); ++i) {
    const model::Box box = *to->ShardBox(shape, i);
    const ReshardPlan::Target& target = plan->targets[i];
    EXPECT_EQ(target.dims, box.shape());
    int64_t covered = 0;
    for (const ReshardPlan::Part& part : target.parts) {
      const ReshardPlan::Source& source = plan->sources[part.source];
      ASSERT_FALSE(source.shards.empty());
      for (const int s : source.shards) EXPECT_EQ(*from->ShardBox(shape, s), source.box);
      if (part.whole) {
        EXPECT_EQ(source.box, box);
        EXPECT_EQ(target.parts.size(), 1u);
        covered = box.num_elements();
        continue;
      }
      covered += part.in_source.num_elements();
      for (size_t d = 0; d < shape.size(); ++d) {
        // The same place of the array, seen from either side, and inside both.
        EXPECT_EQ(source.box.start[d] + part.in_source.start[d], box.start[d] + part.start[d]);
        EXPECT_LE(source.box.start[d] + part.in_source.limit[d], source.box.limit[d]);
        EXPECT_LE(part.start[d] + part.in_source.limit[d] - part.in_source.start[d],
                  target.dims[d]);
      }
    }
    EXPECT_EQ(covered, box.num_elements()) << "shard " << i;
  }
}

TEST(ReshardPlan, EveryNewShardIsCoveredOnce) {
  const model::ShardingRef shardings[] = {
      Tiled({4, 1}),        Tiled({1, 4}),           Tiled({2, 2}),  Tiled({2, 2}, 8),
      Tiled({4, 1}, 2),     Tiled({2, 1, 2}, 0, true), Tiled({1, 1, 4}, 0, true),
      Tiled({2, 2}, 0, false, {3, 1, 2, 0}), Tiled({8, 1}), Tiled({3, 2}),
  };
  for (const model::Shape& shape :
       {model::Shape{8, 8}, model::Shape{7, 5}, model::Shape{1, 3}, model::Shape{0, 4}}) {
    for (const auto& from : shardings) {
      for (const auto& to : shardings) Check(shape, from, to);
    }
  }
}

TEST(ReshardPlan, AShardThatStaysWholeIsOnePart) {
  auto plan = PlanReshard({8, 8}, *Tiled({4, 1}), *Tiled({4, 1}, 8));
  ASSERT_TRUE(plan.ok());
  for (const auto& target : plan->targets) {
    ASSERT_EQ(target.parts.size(), 1u);
    EXPECT_TRUE(target.parts[0].whole);
  }
  // Replicas stand together: the controller takes the nearest.
  plan = PlanReshard({8, 8}, *Tiled({1, 1, 4}, 0, true), *Tiled({1, 2}));
  ASSERT_TRUE(plan.ok());
  ASSERT_EQ(plan->sources.size(), 1u);
  EXPECT_EQ(plan->sources[0].shards, (std::vector<int>{0, 1, 2, 3}));
}

TEST(ReshardPlans, OnePlanForEqualShardings) {
  ReshardPlans plans(2);
  auto first = plans.Get({8, 8}, *Tiled({4, 1}), *Tiled({1, 4}));
  ASSERT_TRUE(first.ok());
  auto again = plans.Get({8, 8}, *Tiled({4, 1}), *Tiled({1, 4}));
  EXPECT_EQ(*first, *again);
  EXPECT_EQ(plans.made(), 1);
  EXPECT_EQ(plans.reused(), 1);
  // Another shape, device order or direction is another plan; the least used one goes.
  EXPECT_NE(*plans.Get({8, 4}, *Tiled({4, 1}), *Tiled({1, 4})), *first);
  EXPECT_EQ(*plans.Get({8, 8}, *Tiled({4, 1}), *Tiled({1, 4})), *first);
  EXPECT_NE(*plans.Get({8, 8}, *Tiled({4, 1}), *Tiled({1, 4}, 0, false, {3, 2, 1, 0})), *first);
  EXPECT_EQ(plans.made(), 3);
  EXPECT_EQ(*plans.Get({8, 8}, *Tiled({4, 1}), *Tiled({1, 4})), *first);
  EXPECT_NE(*plans.Get({8, 4}, *Tiled({4, 1}), *Tiled({1, 4})), nullptr);
  EXPECT_EQ(plans.made(), 4);
}

TEST(ReshardPlans, AShardingThatDoesNotSayItsBoxesIsAnError) {
  ReshardPlans plans(2);
  auto opaque = model::Sharding::Opaque(Devices(4, 0), "device");
  EXPECT_FALSE(plans.Get({8, 8}, *opaque, *Tiled({4, 1})).ok());
  EXPECT_EQ(plans.made(), 0);
}

}  // namespace
}  // namespace causeway::controller
