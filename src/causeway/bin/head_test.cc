// Tests of the head as a whole, without workers: ports, refusals, an orderly end.
#include "causeway/bin/head.h"

#include <httplib.h>

#include <atomic>
#include <nlohmann/json.hpp>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway {
namespace {

using ::testing::HasSubstr;

HeadOptions FreePorts() {
  HeadOptions options;
  options.shape = {.slices = 2, .hosts_per_slice = 1, .devices_per_host = 2};
  options.proxy_port = options.server_port = options.ops_port = 0;
  return options;
}

TEST(Head, ServesOperationsAndEndsWhenAsked) {
  std::atomic<int> asked{0};
  auto head = Head::Start(FreePorts(), [&] { ++asked; });
  ASSERT_TRUE(head.ok()) << head.status();
  EXPECT_GT((*head)->proxy_port(), 0);
  EXPECT_GT((*head)->server_port(), 0);
  httplib::Client client("127.0.0.1", (*head)->ops_port());
  EXPECT_EQ(client.Get("/health")->status, 200);
  EXPECT_EQ(client.Get("/ready")->status, 503);
  const auto status = nlohmann::json::parse(client.Get("/status")->body);
  EXPECT_EQ(status["workers"].size(), 2u);
  EXPECT_EQ(status["workers"][0]["state"], "waiting");
  EXPECT_THAT(client.Get("/metrics")->body, HasSubstr("causeway_proxy_sessions_open 0\n"));
  EXPECT_EQ(client.Post("/shutdown")->status, 200);
  EXPECT_EQ(asked, 1);
  (*head)->Stop("the test is over");
  EXPECT_FALSE(client.Get("/health"));
}

TEST(Head, ATakenPortIsOneClearError) {
  auto first = Head::Start(FreePorts(), nullptr);
  ASSERT_TRUE(first.ok()) << first.status();
  HeadOptions options = FreePorts();
  options.proxy_port = (*first)->proxy_port();
  const auto second = Head::Start(options, nullptr);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("--proxy-port"));

  options = FreePorts();
  options.server_port = (*first)->server_port();
  EXPECT_THAT(std::string(Head::Start(options, nullptr).status().message()),
              HasSubstr("--server-port"));
  options = FreePorts();
  options.ops_port = (*first)->ops_port();
  EXPECT_THAT(std::string(Head::Start(options, nullptr).status().message()),
              HasSubstr("--ops-port"));
}

TEST(Head, AShapeThatXlaCannotNumberIsRefused) {
  HeadOptions options = FreePorts();
  options.shape.slices = 4096;
  options.incarnations_per_worker = 4096;
  const auto head = Head::Start(options, nullptr);
  ASSERT_FALSE(head.ok());
  EXPECT_EQ(head.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace causeway
