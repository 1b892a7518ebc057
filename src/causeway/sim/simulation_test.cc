// Tests: seeds hold, replays are the same to the byte, faults and rare paths are really reached.
#include "causeway/sim/simulation.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "absl/strings/str_join.h"

namespace causeway::sim {
namespace {

// Long runs are for whoever asks: CAUSEWAY_LONG_TESTS=1.
uint64_t Seeds() { return std::getenv("CAUSEWAY_LONG_TESTS") != nullptr ? 10'000 : 1'000; }

TEST(SimulationTest, EverySeedHolds) {
  std::set<std::string> reached;
  int64_t values = 0, errors = 0;
  int failures = 0;
  for (uint64_t seed = 1; seed <= Seeds() && failures < 5; ++seed) {
    Result result = Simulate({.seed = seed});
    reached.merge(result.reached);
    values += result.values_checked;
    errors += result.errors_seen;
    if (result.violations.empty()) continue;
    ++failures;
    ADD_FAILURE() << "causeway sim --seed " << seed << ": "
                  << absl::StrJoin(result.violations, "\n  ");
  }
  // A simulation in which nothing happens proves nothing.
  EXPECT_GT(values, static_cast<int64_t>(Seeds()) * 5);
  EXPECT_GT(errors, static_cast<int64_t>(Seeds()));
  for (const char* mark :
       {"ledger.fenced", "controller.heartbeats_missed", "controller.place_taken",
        "machine.another_life", "graph.transfers_of_a_lost_worker", "graph.parked_launch_dropped",
        "graph.binding_of_an_older_node", "sim.rival_started", "sim.client_left",
        "sim.spare_took_a_place", "sim.program_from_disk", "sim.damaged_program_dropped"}) {
    EXPECT_TRUE(reached.contains(mark)) << mark << " was never reached";
  }
}

TEST(SimulationTest, AReplayIsTheSameToTheByte) {
  for (uint64_t seed = 1; seed <= Seeds(); seed += 100) {
    const Result first = Simulate({.seed = seed, .trace = true});
    const Result second = Simulate({.seed = seed, .trace = true});
    EXPECT_GT(first.trace.size(), 1000u);
    ASSERT_EQ(first.trace, second.trace) << "seed " << seed;
    EXPECT_EQ(first.steps, Simulate({.seed = seed}).steps) << "a trace must change nothing";
  }
}

}  // namespace
}  // namespace causeway::sim
