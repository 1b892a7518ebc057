// The JSON of pathwaysutils, and what workers get of it.
#include "causeway/wire/plugin_program.h"

#include <gtest/gtest.h>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace causeway::wire {
namespace {

std::string Base64(const std::string& bytes) {
  std::string out;
  absl::Base64Escape(bytes, &out);
  return out;
}

// OpSharding: OTHER, tiles {2, 1} over two devices.
const char kTwoRows[] = "\x08\x03\x1a\x02\x02\x01\x22\x02\x00\x01";
std::string TwoRows() { return Base64(std::string(kTwoRows, sizeof(kTwoRows) - 1)); }

std::string WriteRequest(const std::string& sharding) {
  return absl::StrCat(
      R"({"bulk_persistence_write_request": {"write_requests": [{"b64_location": ")",
      Base64("/data/step 1"), R"(", "b64_name": ")", Base64("w"),
      R"(", "b64_hlo_sharding_string": ")", sharding,
      R"(", "shape": [4, 3], "devices": {"device_ids": [5, 2]},
      "timeout": {"seconds": 7, "nanos": 500000000}}]}})");
}

TEST(PluginProgramTest, Write) {
  const auto program = ParsePluginRequest(WriteRequest(TwoRows()));
  ASSERT_TRUE(program.ok()) << program.status();
  const auto& files = std::get<FileProgram>(*program);
  ASSERT_TRUE(files.write);
  ASSERT_EQ(files.items.size(), 1u);
  const FileProgram::Item& item = files.items[0];
  EXPECT_EQ(item.location, "/data/step 1");
  EXPECT_EQ(item.name, "w");
  EXPECT_EQ(item.shape, (model::Shape{4, 3}));
  EXPECT_EQ(item.timeout_seconds, 7.5);
  EXPECT_EQ(item.sharding->devices(), (std::vector<DeviceId>{DeviceId(5), DeviceId(2)}));
  EXPECT_EQ(*item.sharding->ShardShape(item.shape, 0), (model::Shape{2, 3}));
}

TEST(PluginProgramTest, OneReplicaWritesEachPart) {
  const auto replicated = ParsePluginRequest(WriteRequest(""));
  const auto tiled = ParsePluginRequest(WriteRequest(TwoRows()));
  ASSERT_TRUE(replicated.ok() && tiled.ok());
  auto writers = [](const PluginProgram& program) {
    const std::string plan = *EncodeFilePlan(std::get<FileProgram>(program));
    int count = 0;
    for (size_t at = plan.find("\"first\":true"); at != plan.npos;
         at = plan.find("\"first\":true", at + 1)) {
      ++count;
    }
    return count;
  };
  EXPECT_EQ(writers(*replicated), 1);
  EXPECT_EQ(writers(*tiled), 2);
}

TEST(PluginProgramTest, Read) {
  const auto program = ParsePluginRequest(absl::StrCat(
      R"({"bulk_persistence_read_request": {"read_requests": [{"b64_location": ")", Base64("/d"),
      R"(", "b64_name": ")", Base64("w"), R"(", "b64_hlo_sharding_string": "",
      "shape": {"xla_primitive_type_str": "BF16", "dimensions": [8]},
      "devices": {"device_ids": [0]}, "timeout": {"seconds": 1}}]}})"));
  ASSERT_TRUE(program.ok()) << program.status();
  const auto& files = std::get<FileProgram>(*program);
  EXPECT_FALSE(files.write);
  EXPECT_EQ(files.items[0].dtype, model::DType::kBF16);
  EXPECT_TRUE(files.items[0].sharding->fully_replicated());
}

TEST(PluginProgramTest, Reshard) {
  const auto program = ParsePluginRequest(absl::StrCat(
      R"({"reshardRequest": {"donateInput": true, "inSharding": [{"devices":
      {"device_ids": [0, 1]}, "xla_hlo_sharding": ")", TwoRows(),
      R"(", "memory_kind": "device"}], "outSharding": [{"devices": {"device_ids": [3]},
      "xla_hlo_sharding": ""}]}})"));
  ASSERT_TRUE(program.ok()) << program.status();
  const auto& reshard = std::get<ReshardProgram>(*program);
  EXPECT_TRUE(reshard.donate);
  EXPECT_EQ(reshard.inputs[0]->num_shards(), 2);
  EXPECT_EQ(reshard.outputs[0]->devices(), std::vector<DeviceId>{DeviceId(3)});
}

TEST(PluginProgramTest, Profile) {
  const auto program = ParsePluginRequest(
      R"({"profileRequest": {"traceLocation": "/traces", "maxNumHosts": 2, "maxDurationSecs": 1.5,
      "xprofTraceOptions": {"traceDirectory": "/traces", "traceSessionName": "run",
      "hostTraceLevel": 1, "pwTraceOptions": {"enablePythonTracer": true}}}})");
  ASSERT_TRUE(program.ok()) << program.status();
  const auto& profile = std::get<ProfileProgram>(*program);
  EXPECT_EQ(profile.directory, "/traces");
  EXPECT_EQ(profile.session, "run");
  EXPECT_EQ(profile.max_hosts, 2);
  EXPECT_EQ(profile.max_seconds, 1.5);
  EXPECT_EQ(profile.host_trace_level, 1);
  EXPECT_TRUE(profile.python_tracer);
  EXPECT_TRUE(profile.has_output);
  const auto plain = ParsePluginRequest(R"({"profileRequest": {"traceLocation": "/t"}})");
  EXPECT_FALSE(std::get<ProfileProgram>(*plain).has_output);
}

TEST(PluginProgramTest, RefusesWithTheWordsThatPathwaysutilsLooksFor) {
  for (const std::string& text :
       {std::string("{"), std::string("[]"), std::string(R"({"somethingElse": {}})"),
        std::string(R"({"reshardRequest": {}})"),
        std::string(R"({"bulk_persistence_write_request": {"write_requests": [{}]}})"),
        WriteRequest("%%%")}) {
    const auto program = ParsePluginRequest(text);
    EXPECT_EQ(program.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_TRUE(absl::StartsWith(program.status().message(), "Bad PluginProgram")) << text;
  }
}

}  // namespace
}  // namespace causeway::wire
