// Tests of the nodes' numbers and of the topology that XLA reads.
#include "causeway/coordination/topology.h"

#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "topology.pb.h"

namespace causeway::coordination {
namespace {

using ::testing::HasSubstr;

TopologyOptions TwoSlices() {
  TopologyOptions options;
  options.shape = {.slices = 2, .hosts_per_slice = 2, .devices_per_host = 3};
  options.incarnations_per_worker = 5;
  return options;
}

TEST(Topology, NamesEveryNodeThatMayEverLive) {
  xla::GlobalTopologyProto topology;
  ASSERT_TRUE(topology.ParseFromString(*EncodeGlobalTopology(TwoSlices())));
  ASSERT_EQ(topology.processes_size(), 21);
  EXPECT_EQ(topology.processes(0).devices_size(), 0);
  EXPECT_EQ(topology.processes(0).boot_id(), "");
  std::set<int> ids;
  for (int node = 1; node < 21; ++node) {
    const xla::LocalTopologyProto& process = topology.processes(node);
    EXPECT_EQ(process.process_id(), node);
    EXPECT_EQ(process.boot_id(), node <= 10 ? "slice0" : "slice1");
    ASSERT_EQ(process.devices_size(), 3);
    for (int k = 0; k < 3; ++k) {
      EXPECT_EQ(process.devices(k).local_device_ordinal(), k);
      EXPECT_EQ(process.devices(k).global_device_id(), node * 2048 + k);
      EXPECT_TRUE(ids.insert(process.devices(k).global_device_id()).second);
    }
  }
  EXPECT_EQ(GlobalTopologyKey("cpu"), "cpu:global_topology/cpu");
  EXPECT_EQ(GlobalTopologyKey("cuda"), "cuda:global_topology/cuda");
}

TEST(Topology, RefusesWhatXlaCannotNumber) {
  TopologyOptions options = TwoSlices();
  options.shape.devices_per_host = 2049;
  EXPECT_EQ(EncodeGlobalTopology(options).status().code(), absl::StatusCode::kInvalidArgument);
  options = TwoSlices();
  options.shape.slices = 1 << 19;
  EXPECT_EQ(EncodeGlobalTopology(options).status().code(), absl::StatusCode::kInvalidArgument);
  options = TwoSlices();
  options.incarnations_per_worker = 0;
  EXPECT_EQ(EncodeGlobalTopology(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Topology, AKeyNamesTheNodesThatMeetThere) {
  EXPECT_THAT(NodesMeetingAt("cpu:gloo/2048,2049,133120/0"), ::testing::ElementsAre(1, 1, 65));
  EXPECT_THAT(NodesMeetingAt("cpu:gloo/2048"), ::testing::ElementsAre(1));
  for (const char* other : {"", "gloo/2048", "cpu:gloo/", "cpu:gloo/x,2048/0", "cpu:gloo/-1/0",
                            "cpu:global_topology/cpu"}) {
    EXPECT_TRUE(NodesMeetingAt(other).empty()) << other;
  }
}

TEST(NodeIds, AreFreshUntilTheyAreUsedUp) {
  NodeIds ids(TwoSlices());
  EXPECT_EQ(ids.num_nodes(), 21);
  std::set<int> seen;
  for (int w = 0; w < 4; ++w) {
    for (int life = 0; life < 5; ++life) {
      const absl::StatusOr<int> node = ids.New(WorkerId(w));
      ASSERT_TRUE(node.ok());
      EXPECT_TRUE(seen.insert(*node).second);
      EXPECT_EQ(*ids.Owner(*node), WorkerId(w));
      EXPECT_EQ(ids.left(WorkerId(w)), 4 - life);
    }
  }
  EXPECT_EQ(*seen.begin(), 1);
  EXPECT_EQ(*seen.rbegin(), 20);
  const absl::StatusOr<int> none = ids.New(WorkerId(2));
  EXPECT_EQ(none.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("--incarnations-per-worker"));
  EXPECT_FALSE(ids.Owner(0).ok());
  EXPECT_FALSE(ids.Owner(21).ok());
  // Another process at the same place begins again; the others' ids are as they were.
  ids.NewProcess(WorkerId(2));
  EXPECT_EQ(*ids.New(WorkerId(2)), 11);
  EXPECT_FALSE(ids.New(WorkerId(1)).ok());
}

}  // namespace
}  // namespace causeway::coordination
