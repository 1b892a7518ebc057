// Tests: marks do nothing outside a simulation, and report inside one.
#include "causeway/base/probes.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "causeway/base/log.h"

namespace causeway {
namespace {

class Recorder : public SimHooks {
 public:
  void Reached(const char* name) override { reached.push_back(name); }
  bool FaultPoint(const char* name) override { return std::string(name) == "test.fault"; }
  bool Planted(const char* name) override { return std::string(name) == "test.bug"; }
  void Log(int, absl::string_view text) override { logged = std::string(text); }
  std::vector<std::string> reached;
  std::string logged;
};

bool Has(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

TEST(ProbesTest, NothingHappensOutsideASimulation) {
  REACHED("test.path");
  EXPECT_FALSE(FAULT_POINT("test.fault"));
  EXPECT_FALSE(PLANTED("test.bug"));
}

TEST(ProbesTest, HooksHearAndDecide) {
  Recorder recorder;
  {
    SimScope scope(&recorder);
    REACHED("test.path");
    EXPECT_TRUE(FAULT_POINT("test.fault"));
    EXPECT_FALSE(FAULT_POINT("test.other_fault"));
    EXPECT_TRUE(PLANTED("test.bug"));
    LOG(ERROR) << "told to the simulation";
  }
  EXPECT_FALSE(PLANTED("test.bug"));
  EXPECT_EQ(recorder.reached, std::vector<std::string>{"test.path"});
  EXPECT_NE(recorder.logged.find("told to the simulation"), std::string::npos);
}

TEST(ProbesTest, MarksAreListedWhetherReachedOrNot) {
  if (CurrentSimHooks() != nullptr) REACHED("test.never_reached");
  EXPECT_TRUE(Has(ReachedMarks(), "test.path"));
  EXPECT_TRUE(Has(ReachedMarks(), "test.never_reached"));
  EXPECT_TRUE(Has(FaultPointMarks(), "test.fault"));
  EXPECT_TRUE(Has(PlantedMarks(), "test.bug"));
}

}  // namespace
}  // namespace causeway
