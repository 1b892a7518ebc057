// Tests of tile arithmetic: which shard holds which box.
#include "causeway/model/sharding.h"

#include <vector>

#include "causeway/base/limits.h"
#include "gtest/gtest.h"

namespace causeway::model {
namespace {

std::vector<DeviceId> Devices(int n, int first = 0) {
  std::vector<DeviceId> devices;
  for (int i = 0; i < n; ++i) devices.push_back(DeviceId(first + i));
  return devices;
}

OpSharding Tiled(std::vector<int64_t> dims) {
  OpSharding op;
  op.type = OpSharding::Type::kOther;
  op.tile_dims = std::move(dims);
  return op;
}

ShardingRef Hlo(int n, OpSharding op) {
  absl::StatusOr<ShardingRef> sharding = Sharding::Hlo(Devices(n), "device", std::move(op));
  EXPECT_TRUE(sharding.ok()) << sharding.status();
  return *sharding;
}

std::vector<Box> Boxes(const ShardingRef& sharding, const Shape& shape) {
  std::vector<Box> boxes;
  for (int i = 0; i < sharding->num_shards(); ++i) {
    absl::StatusOr<Box> box = sharding->ShardBox(shape, i);
    EXPECT_TRUE(box.ok()) << box.status();
    boxes.push_back(*box);
    EXPECT_EQ(*sharding->ShardShape(shape, i), box->shape());
  }
  return boxes;
}

TEST(OpSharding, IotaWithTransposeWalksTheMeshInAnotherOrder) {
  // devices=[4,2]<=[2,4]T(1,0): device (row, column) of a 2x4 mesh, columns first.
  OpSharding op = Tiled({4, 2});
  op.iota_reshape_dims = {2, 4};
  op.iota_transpose_perm = {1, 0};
  EXPECT_EQ(*op.TileAssignment(), (std::vector<int64_t>{0, 4, 1, 5, 2, 6, 3, 7}));

  const std::vector<Box> boxes = Boxes(Hlo(8, op), {8, 4});
  EXPECT_EQ(boxes[0], (Box{{0, 0}, {2, 2}}));
  EXPECT_EQ(boxes[1], (Box{{2, 0}, {4, 2}}));
  EXPECT_EQ(boxes[4], (Box{{0, 2}, {2, 4}}));
  EXPECT_EQ(boxes[7], (Box{{6, 2}, {8, 4}}));
}

TEST(OpSharding, IotaOfThreeDimensions) {
  // devices=[2,2,2]<=[2,2,2]T(2,0,1).
  OpSharding op = Tiled({2, 2, 2});
  op.iota_reshape_dims = {2, 2, 2};
  op.iota_transpose_perm = {2, 0, 1};
  EXPECT_EQ(*op.TileAssignment(), (std::vector<int64_t>{0, 2, 4, 6, 1, 3, 5, 7}));
}

TEST(OpSharding, RefusesWhatIsNoPermutation) {
  OpSharding op = Tiled({2, 2});
  op.tile_devices = {0, 1, 1, 3};
  EXPECT_EQ(op.TileAssignment().status().code(), absl::StatusCode::kInvalidArgument);
  op.tile_devices = {0, 1, 2};
  EXPECT_EQ(op.TileAssignment().status().code(), absl::StatusCode::kInvalidArgument);
  op.tile_devices.clear();
  op.iota_reshape_dims = {3, 2};
  op.iota_transpose_perm = {1, 0};
  EXPECT_EQ(op.TileAssignment().status().code(), absl::StatusCode::kInvalidArgument);
  op.iota_reshape_dims = {2, 2};
  op.iota_transpose_perm = {0, 2};
  EXPECT_EQ(op.TileAssignment().status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(Sharding::Hlo(Devices(3), "", Tiled({2})).ok());
}

TEST(Sharding, ExplicitAssignmentPlacesTiles) {
  OpSharding op = Tiled({4});
  op.tile_devices = {2, 0, 3, 1};
  const std::vector<Box> boxes = Boxes(Hlo(4, op), {8});
  EXPECT_EQ(boxes[2], (Box{{0}, {2}}));
  EXPECT_EQ(boxes[0], (Box{{2}, {4}}));
  EXPECT_EQ(boxes[3], (Box{{4}, {6}}));
  EXPECT_EQ(boxes[1], (Box{{6}, {8}}));
}

TEST(Sharding, UnevenCutsLeaveTheLastShardsShortOrEmpty) {
  const std::vector<Box> boxes = Boxes(Hlo(4, Tiled({4})), {5});
  EXPECT_EQ(boxes[0], (Box{{0}, {2}}));
  EXPECT_EQ(boxes[2], (Box{{4}, {5}}));
  EXPECT_TRUE(boxes[3].empty());
  EXPECT_EQ(boxes[3].shape(), (Shape{0}));
}

TEST(Sharding, ShardsCoverTheArrayExactlyOnce) {
  OpSharding op = Tiled({2, 1, 4});
  op.iota_reshape_dims = {4, 2};
  op.iota_transpose_perm = {1, 0};
  const Shape shape = {3, 2, 7};
  int64_t covered = 0;
  const std::vector<Box> boxes = Boxes(Hlo(8, op), shape);
  for (size_t i = 0; i < boxes.size(); ++i) {
    covered += boxes[i].num_elements();
    for (size_t j = 0; j < i; ++j) EXPECT_TRUE(Intersect(boxes[i], boxes[j]).empty());
  }
  EXPECT_EQ(covered, NumElements(shape));
}

TEST(Sharding, ReplicationOnTheLastTileDimension) {
  // devices=[2,1,2]<=[4] last_tile_dim_replicate: pairs hold the same rows.
  OpSharding op = Tiled({2, 1, 2});
  op.replicate_on_last_tile_dim = true;
  const ShardingRef sharding = Hlo(4, op);
  EXPECT_FALSE(sharding->fully_replicated());
  const std::vector<Box> boxes = Boxes(sharding, {4, 6});
  EXPECT_EQ(boxes[0], (Box{{0, 0}, {2, 6}}));
  EXPECT_EQ(boxes[1], boxes[0]);
  EXPECT_EQ(boxes[2], (Box{{2, 0}, {4, 6}}));
  EXPECT_EQ(boxes[3], boxes[2]);
}

TEST(Sharding, SubgroupDimensionsDoNotCut) {
  OpSharding op = Tiled({2, 2, 2});  // rank 1, then two subgroup dimensions
  op.last_tile_dims = {OpSharding::Type::kReplicated, OpSharding::Type::kUnreduced};
  const ShardingRef sharding = Hlo(8, op);
  EXPECT_FALSE(sharding->fully_replicated());
  const std::vector<Box> boxes = Boxes(sharding, {6});
  for (int i = 0; i < 4; ++i) EXPECT_EQ(boxes[i], (Box{{0}, {3}}));
  for (int i = 4; i < 8; ++i) EXPECT_EQ(boxes[i], (Box{{3}, {6}}));
}

TEST(Sharding, TilesOfOneAreReplicationInDisguise) {
  OpSharding op = Tiled({1, 1, 4});
  op.replicate_on_last_tile_dim = true;
  EXPECT_TRUE(Hlo(4, op)->fully_replicated());
  op.replicate_on_last_tile_dim = false;
  op.last_tile_dims = {OpSharding::Type::kReplicated};
  EXPECT_TRUE(Hlo(4, op)->fully_replicated());
  // Partial sums are not copies of one value.
  op.last_tile_dims = {OpSharding::Type::kUnreduced};
  EXPECT_FALSE(Hlo(4, op)->fully_replicated());
  EXPECT_EQ(Boxes(Hlo(4, op), {3, 5})[2], FullBox({3, 5}));
}

TEST(Sharding, ReplicatedAndMaximalHoldTheWhole) {
  OpSharding op;
  EXPECT_TRUE(Hlo(3, op)->fully_replicated());
  EXPECT_EQ(Boxes(Hlo(3, op), {4, 2})[2], FullBox({4, 2}));
  op.type = OpSharding::Type::kMaximal;
  EXPECT_TRUE(Hlo(1, op)->fully_replicated());
  EXPECT_EQ(Boxes(Hlo(1, op), {4, 2})[0], FullBox({4, 2}));
}

TEST(Sharding, ScalarsAndWrongRanks) {
  OpSharding op = Tiled({2});
  op.replicate_on_last_tile_dim = true;
  EXPECT_EQ(Boxes(Hlo(2, op), {})[1], (Box{{}, {}}));
  EXPECT_EQ(Hlo(2, Tiled({2}))->ShardBox({4, 4}, 0).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Hlo(2, Tiled({2}))->ShardBox({4}, 2).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Sharding, ConcreteKindsSayShapesButNotAlwaysPlaces) {
  const ShardingRef even = Sharding::ConcreteEven(Devices(2), "", {4}, {2}, false);
  EXPECT_EQ(*even->ShardShape({4}, 1), (Shape{2}));
  EXPECT_EQ(even->ShardBox({4}, 1).status().code(), absl::StatusCode::kUnimplemented);
  const ShardingRef copies = Sharding::ConcreteEven(Devices(2), "", {4}, {4}, true);
  EXPECT_EQ(*copies->ShardBox({4}, 1), FullBox({4}));
  const ShardingRef odd = Sharding::Concrete(Devices(2), "", {5}, {{2}, {3}});
  EXPECT_EQ(*odd->ShardShape({5}, 1), (Shape{3}));
  EXPECT_EQ(odd->ShardBox({5}, 0).status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(*Sharding::SingleDevice(DeviceId(9), "")->ShardBox({5}, 0), FullBox({5}));
}

TEST(Sharding, MovingItKeepsTheCut) {
  const ShardingRef moved = Hlo(2, Tiled({2}))->WithDevices(Devices(2, 10), "pinned_host");
  EXPECT_EQ(moved->devices()[1], DeviceId(11));
  EXPECT_EQ(moved->memory_kind(), "pinned_host");
  EXPECT_EQ(*moved->ShardBox({4}, 1), (Box{{2}, {4}}));
  EXPECT_TRUE(SameMemoryKind("", "device"));
  EXPECT_FALSE(SameMemoryKind("", "pinned_host"));
}

TEST(Shapes, TooLargeOnesAreRefusedByName) {
  EXPECT_TRUE(CheckShape({}).ok());
  EXPECT_TRUE(CheckShape({0, 5}).ok());
  EXPECT_TRUE(CheckShape({limits::kArrayElementsMax}).ok());
  EXPECT_EQ(CheckShape({-1}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CheckShape({limits::kArrayElementsMax, 2}).code(),
            absl::StatusCode::kResourceExhausted);
  // An empty dimension does not excuse the others: strides would overflow.
  EXPECT_EQ(CheckShape({INT64_MAX, 0, INT64_MAX}).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(CheckShape(Shape(limits::kArrayRankMax + 1, 1)).code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(Shapes, TileAssignmentsOfNoClusterAreRefused) {
  OpSharding op = Tiled({INT64_MAX, INT64_MAX});
  EXPECT_EQ(op.TileAssignment().status().code(), absl::StatusCode::kResourceExhausted);
  op = Tiled({2, 2});
  op.iota_reshape_dims = {INT64_MAX, 4};
  op.iota_transpose_perm = {1, 0};
  EXPECT_EQ(op.TileAssignment().status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
TEST(Sharding, TilesArePaddedWhereShardsAreCut) {
  OpSharding op;
  op.type = OpSharding::Type::kOther;
  op.tile_dims = {4, 1};
  op.tile_devices = {3, 2, 1, 0};
  const ShardingRef cut = *Sharding::Hlo(
      {DeviceId(0), DeviceId(1), DeviceId(2), DeviceId(3)}, "", op);
  EXPECT_EQ(*cut->TileShape({8, 3}), Shape({2, 3}));
  EXPECT_TRUE(cut->Even({8, 3}));
  EXPECT_EQ(*cut->TileShape({7, 3}), Shape({2, 3}));
  EXPECT_EQ(*cut->ShardShape({7, 3}, 0), Shape({1, 3}));
  EXPECT_FALSE(cut->Even({7, 3}));
  EXPECT_FALSE(cut->TileShape({1, 2, 3}).ok());
  const ShardingRef differ =
      Sharding::Concrete({DeviceId(0), DeviceId(1)}, "", {3}, {{1}, {2}});
  EXPECT_FALSE(differ->TileShape({3}).ok());
}

}  // namespace causeway::model
