// Tests: the checks can fail. Every planted bug is found within a number of seeds.
#include <gtest/gtest.h>

#include <algorithm>

#include "causeway/base/probes.h"
#include "causeway/sim/simulation.h"

namespace causeway::sim {
namespace {

constexpr uint64_t kSeedsMax = 200;

// The first seed that finds the bug; 0 when none does.
uint64_t FoundBy(const std::string& bug, std::string* how) {
  for (uint64_t seed = 1; seed <= kSeedsMax; ++seed) {
    const Result result = Simulate({.seed = seed, .planted = {bug}});
    if (result.violations.empty()) continue;
    // It is the bug that was found, not the weather.
    EXPECT_TRUE(Simulate({.seed = seed}).violations.empty()) << "seed " << seed;
    *how = result.violations[0];
    return seed;
  }
  return 0;
}

TEST(PlantedTest, EveryPlantedBugIsFound) {
  const std::vector<std::string> bugs = PlantedMarks();
  EXPECT_GE(bugs.size(), 6u);
  for (const std::string& bug : bugs) {
    std::string how;
    const uint64_t seed = FoundBy(bug, &how);
    EXPECT_NE(seed, 0u) << bug << " was not found within " << kSeedsMax << " seeds";
    std::printf("%-36s seed %3d: %.110s\n", bug.c_str(), static_cast<int>(seed), how.c_str());
  }
}

}  // namespace
}  // namespace causeway::sim
