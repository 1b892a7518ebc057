// Tests of the operations server over real HTTP.
#include "causeway/ops/ops_server.h"

#include <httplib.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::ops {
namespace {

using ::testing::HasSubstr;
using nlohmann::json;

class FakeSource : public core::StatusSource {
 public:
  core::ClusterStatus GetStatus() override {
    core::ClusterStatus status;
    status.complete = complete;
    core::WorkerStatus worker;
    worker.id = WorkerId(2);
    worker.state = "lost";
    worker.why = "connection reset";
    status.workers = {worker};
    return status;
  }
  core::EventLog& events() override { return log; }

  std::atomic<bool> complete{false};
  core::EventLog log{2};
};

class OpsServerTest : public ::testing::Test {
 protected:
  int Start() {
    absl::StatusOr<int> port = server_.Start();
    EXPECT_TRUE(port.ok()) << port.status();
    return port.value_or(0);
  }

  FakeSource source_;
  std::atomic<int> shutdowns_{0};
  OpsServer server_{{.log_id = "log 7", .on_shutdown = [this] { ++shutdowns_; }}, source_};
};

TEST_F(OpsServerTest, IsAliveBeforeItIsReady) {
  httplib::Client client("127.0.0.1", Start());
  EXPECT_EQ(client.Get("/health")->status, 200);
  const auto waiting = client.Get("/ready");
  EXPECT_EQ(waiting->status, 503);
  EXPECT_THAT(waiting->body, HasSubstr("worker 2 is lost: connection reset"));
  source_.complete = true;
  EXPECT_EQ(client.Get("/ready")->status, 200);
}

TEST_F(OpsServerTest, ServesTheFormats) {
  server_.AddMetrics([] { return "causeway_extra 1\n"; });
  httplib::Client client("127.0.0.1", Start());
  EXPECT_EQ(json::parse(client.Get("/status")->body)["workers"][0]["id"], 2);
  EXPECT_TRUE(json::parse(client.Get("/devices")->body)["devices"].is_array());
  const auto metrics = client.Get("/metrics");
  EXPECT_THAT(metrics->body, HasSubstr("causeway_worker_up"));
  EXPECT_THAT(metrics->body, HasSubstr("causeway_extra 1"));
  EXPECT_THAT(metrics->get_header_value("Content-Type"), HasSubstr("version=0.0.4"));
  EXPECT_EQ(client.Get("/nowhere")->status, 404);
}

TEST_F(OpsServerTest, TellsEventsAndHowManyAreForgotten) {
  httplib::Client client("127.0.0.1", Start());
  EXPECT_EQ(json::parse(client.Get("/events")->body)["next"], 0);
  std::thread later([this] {
    for (int slice = 0; slice < 3; ++slice) {
      source_.log.Append({.kind = "lost", .slice = slice, .cause = "killed"});
    }
  });
  const json first = json::parse(client.Get("/events?after=0&wait_seconds=20")->body);
  EXPECT_FALSE(first["events"].empty());
  later.join();
  const json all = json::parse(client.Get("/events?after=0")->body);
  EXPECT_EQ(all["log"], "log 7");
  EXPECT_EQ(all["missed"], 1);
  ASSERT_EQ(all["events"].size(), 2);
  EXPECT_EQ(all["events"][1]["slice"], 2);
  EXPECT_EQ(all["events"][1]["worker"], nullptr);
  EXPECT_EQ(all["events"][1]["cause"], "killed");
  EXPECT_TRUE(json::parse(client.Get("/events")->body)["events"].empty());
  EXPECT_EQ(client.Get("/events?after=x")->status, 400);
}

TEST_F(OpsServerTest, MoreDoorsCanBeAdded) {
  server_.Get("/echo", [](const OpsServer::Request& request) -> absl::StatusOr<json> {
    auto it = request.query.find("word");
    if (it == request.query.end()) return absl::InvalidArgumentError("give ?word=...");
    return json{{"word", it->second}};
  });
  server_.Post("/busy", [](const OpsServer::Request& request) -> absl::StatusOr<json> {
    return absl::FailedPreconditionError("busy with " + request.body);
  });
  httplib::Client client("127.0.0.1", Start());
  EXPECT_EQ(json::parse(client.Get("/echo?word=hi")->body)["word"], "hi");
  const auto refused = client.Get("/echo");
  EXPECT_EQ(refused->status, 400);
  EXPECT_EQ(json::parse(refused->body)["error"], "give ?word=...");
  const auto busy = client.Post("/busy", "it", "text/plain");
  EXPECT_EQ(busy->status, 409);
  EXPECT_THAT(busy->body, HasSubstr("busy with it"));
}

TEST_F(OpsServerTest, ShutdownIsAskedForOnceAndByPostOnly) {
  httplib::Client client("127.0.0.1", Start());
  EXPECT_EQ(client.Get("/shutdown")->status, 404);
  EXPECT_EQ(shutdowns_, 0);
  EXPECT_EQ(client.Post("/shutdown")->status, 200);
  EXPECT_EQ(client.Post("/shutdown")->status, 200);
  EXPECT_EQ(shutdowns_, 1);
}

TEST_F(OpsServerTest, APostThatAnnouncesNoBodyIsAnsweredAtOnce) {
  const int port = Start();
  const int sock = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::connect(sock, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  // Shorter than the server's own patience with bodies.
  const timeval patience{5, 0};
  ::setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  const std::string request = "POST /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n";
  ASSERT_EQ(::send(sock, request.data(), request.size(), 0),
            static_cast<ssize_t>(request.size()));
  char answer[64] = "";
  EXPECT_GT(::recv(sock, answer, sizeof(answer) - 1, 0), 0);
  EXPECT_THAT(answer, HasSubstr("200"));
  ::close(sock);
  EXPECT_EQ(shutdowns_, 1);
}

TEST_F(OpsServerTest, ATakenPortIsSaidSo) {
  OpsServer second({.port = Start()}, source_);
  const absl::StatusOr<int> port = second.Start();
  ASSERT_FALSE(port.ok());
  EXPECT_THAT(std::string(port.status().message()), HasSubstr("is taken; choose another"));
}

TEST_F(OpsServerTest, StopsAndStopsAgain) {
  const int port = Start();
  server_.Stop();
  server_.Stop();
  httplib::Client client("127.0.0.1", port);
  EXPECT_FALSE(client.Get("/health"));
}

}  // namespace
}  // namespace causeway::ops
