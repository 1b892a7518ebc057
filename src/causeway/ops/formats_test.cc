// Tests of the two formats: JSON and Prometheus text.
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "causeway/ops/metrics_text.h"
#include "causeway/ops/status_json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::ops {
namespace {

using ::testing::HasSubstr;

core::ClusterStatus Sample() {
  core::ClusterStatus status;
  status.shape = {.slices = 2, .hosts_per_slice = 1, .devices_per_host = 1};
  status.epoch = EpochId(5);
  status.devices = model::Topology(status.shape).devices();
  core::WorkerStatus up;
  up.id = WorkerId(0);
  up.alive = true;
  up.state = "alive";
  up.pid = 17;
  up.last_heard_age = absl::Milliseconds(250);
  up.stats = {{"buffers", 3}, {"buffer_bytes", 96}};
  core::WorkerStatus down;
  down.id = WorkerId(1);
  down.slice = 1;
  down.state = "lost";
  down.why = "said \"bye\"";
  status.workers = {up, down};
  core::SessionStatus session;
  session.id = SessionId(9);
  session.arrays = 4;
  status.sessions = {session};
  status.counters = {{"launches_total", 12}, {"odd-name", 1}};
  status.gauges = {{"live_buffers", 7}};
  return status;
}

TEST(StatusJson, SaysWhatAPersonNeeds) {
  const nlohmann::json json = StatusJson(Sample());
  EXPECT_EQ(json["epoch"], 5);
  EXPECT_EQ(json["complete"], false);
  EXPECT_EQ(json["shape"]["slices"], 2);
  EXPECT_EQ(json["workers"][0]["alive"], true);
  EXPECT_EQ(json["workers"][0]["last_heard_seconds"], 0.25);
  EXPECT_EQ(json["workers"][1]["state"], "lost");
  EXPECT_TRUE(json["workers"][1]["last_heard_seconds"].is_null());
  EXPECT_EQ(json["sessions"][0]["arrays"], 4);
  EXPECT_EQ(json["counters"]["launches_total"], 12);
}

TEST(DevicesJson, GivesEachDeviceItsWorkersState) {
  const nlohmann::json devices = DevicesJson(Sample())["devices"];
  ASSERT_EQ(devices.size(), 2u);
  EXPECT_EQ(devices[0]["state"], "alive");
  EXPECT_EQ(devices[0]["buffer_bytes"], 96);
  EXPECT_EQ(devices[1]["state"], "lost");
  EXPECT_EQ(devices[1]["slice"], 1);
  EXPECT_FALSE(devices[1].contains("buffers"));
}

TEST(MetricsText, HasEveryFamilyOnceAndEverySampleInAFamily) {
  const std::string text = MetricsText(Sample());
  EXPECT_THAT(text, HasSubstr("causeway_launches_total 12\n"));
  EXPECT_THAT(text, HasSubstr("causeway_odd_name_total 1\n"));
  EXPECT_THAT(text, HasSubstr("causeway_live_buffers 7\n"));
  EXPECT_THAT(text, HasSubstr("causeway_worker_up{worker=\"1\",slice=\"1\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("causeway_worker_stat_buffers{worker=\"0\",slice=\"0\"} 3\n"));
  std::set<std::string> families;
  std::string current, line;
  for (std::istringstream lines(text); std::getline(lines, line);) {
    if (line.rfind("# HELP ", 0) == 0) {
      current = line.substr(7, line.find(' ', 7) - 7);
      EXPECT_TRUE(families.insert(current).second) << line;
    } else if (line[0] != '#') {
      EXPECT_EQ(line.substr(0, line.find_first_of("{ ")), current) << line;
    }
  }
}

}  // namespace
}  // namespace causeway::ops
