// Tests of the numbering of logical devices.
#include "causeway/model/topology.h"

#include "gtest/gtest.h"

namespace causeway::model {
namespace {

TEST(Topology, NumbersDevicesWorkerByWorker) {
  const Topology topology({.slices = 3, .hosts_per_slice = 2, .devices_per_host = 4});
  ASSERT_EQ(topology.devices().size(), 24u);
  EXPECT_EQ(topology.num_workers(), 6);
  for (int i = 0; i < 24; ++i) {
    const Device& device = topology.device(DeviceId(i));
    EXPECT_EQ(device.id, DeviceId(i));
    EXPECT_EQ(device.worker, WorkerId(i / 4));
    EXPECT_EQ(device.local_ordinal, i % 4);
    EXPECT_EQ(device.slice, i / 8);
    EXPECT_EQ(device.slice_index, i / 8);
    EXPECT_EQ(topology.SliceOf(device.worker), device.slice);
    EXPECT_EQ(device.coords, (std::vector<int64_t>{i % 8, 0, 0}));
  }
  EXPECT_TRUE(topology.Contains(DeviceId(23)));
  EXPECT_FALSE(topology.Contains(DeviceId(24)));
  EXPECT_FALSE(topology.Contains(DeviceId(-1)));
}

TEST(Topology, UnannouncedSlicesLookLikeOneButFailApart) {
  const Topology topology(
      {.slices = 2, .hosts_per_slice = 1, .devices_per_host = 2, .announce_slices = false});
  for (const Device& device : topology.devices()) EXPECT_EQ(device.slice_index, 0);
  EXPECT_EQ(topology.device(DeviceId(3)).slice, 1);
  EXPECT_EQ(topology.device(DeviceId(3)).coords, (std::vector<int64_t>{3, 0, 0}));
}

TEST(Topology, KindsAreSetForAWholeWorker) {
  Topology topology({.slices = 2, .hosts_per_slice = 1, .devices_per_host = 2});
  topology.SetDeviceKind(WorkerId(1), "NVIDIA H200");
  EXPECT_EQ(topology.device(DeviceId(1)).kind, "cpu");
  EXPECT_EQ(topology.device(DeviceId(2)).kind, "NVIDIA H200");
  EXPECT_EQ(topology.device(DeviceId(3)).kind, "NVIDIA H200");
}

TEST(TopologyDeathTest, AnUnknownDeviceIsABug) {
  const Topology topology(ClusterShape{});
  EXPECT_DEATH(topology.device(DeviceId(1)), "CHECK failed.*device 1");
}

}  // namespace
}  // namespace causeway::model
