// Tests: a whole worker with a fake device against a head over real sockets.
#include "causeway/worker/worker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "causeway/device/fake_device.h"
#include "causeway/worker/testing/command_text.h"
#include "causeway/worker/testing/fake_head.h"

namespace causeway::worker::testing {
namespace {

constexpr char kAddOne[] = "fake add_one; inputs 1; addc 0 1; out f32[2] 1";
constexpr char kSum[] = "fake sum; inputs 1; psum 0; out f32[2] 1";

// Workers on threads, all on one fabric.
class WorkerTest : public ::testing::Test {
 protected:
  void StartWorker(int w, absl::Duration reattach = absl::Seconds(30)) {
    WorkerOptions options;
    options.head = head_.address();
    options.worker = w;
    options.host = "127.0.0.1";
    options.reattach_timeout = reattach;
    threads_.emplace_back([this, options] {
      const absl::Status end = RunWorker(options, [this](std::function<bool(int, int)>) {
        return absl::StatusOr<std::unique_ptr<device::Device>>(
            std::make_unique<device::FakeDevice>(
                1, &fabric_, device::FakeDeviceHooks{.overdue = [this] {
                  return overdue_ ? absl::InvalidArgumentError("a callback") : absl::OkStatus();
                }}));
      });
      absl::MutexLock lock(&mu_);
      ends_.push_back(end);
    });
  }
  control::Hello Welcome(int w, uint64_t incarnation) {
    auto hello = head_.WaitAttached(w);
    EXPECT_TRUE(hello.ok()) << hello.status();
    if (!hello.ok()) return {};
    control::Command command;
    command.mutable_welcome()->set_worker(w);
    command.mutable_welcome()->set_incarnation(incarnation);
    command.mutable_welcome()->set_devices_per_host(1);
    command.mutable_welcome()->set_num_workers(2);
    command.mutable_welcome()->set_coordinator("127.0.0.1:1");
    head_.Send(w, command);
    return *hello;
  }
  void OpenEpoch(uint64_t epoch, const std::vector<int>& nodes,
                 const std::vector<std::string>& addresses) {
    for (size_t w = 0; w < nodes.size(); ++w) {
      if (nodes[w] == 0) continue;
      control::Command command;
      auto* open = command.mutable_open_epoch();
      open->set_epoch(epoch);
      open->set_drain_ms(5000);
      for (const int n : nodes) open->mutable_nodes()->add_node(n);
      for (const auto& a : addresses) open->mutable_nodes()->add_data_address(a);
      head_.Send(static_cast<int>(w), command);
      auto opened = head_.WaitEvent(static_cast<int>(w), [epoch](const control::Event& e) {
        return e.has_epoch_opened() && e.epoch_opened().epoch() == epoch;
      });
      ASSERT_TRUE(opened.ok()) << opened.status();
      ASSERT_EQ(opened->epoch_opened().status().code(), 0);
    }
  }
  void Program(int w, uint64_t id, const std::string& text, const std::vector<int>& devices) {
    control::Command command;
    command.mutable_load_program()->set_program(id);
    command.mutable_load_program()->set_serialized(text);
    head_.Send(w, command);
    head_.Send(w, BindOf(id, id, devices, 1));
  }
  // Two workers in epoch 1. Buffer 10 is {1, 2} on worker 0 and {2, 2} on worker 1; launch 1 of
  // program 1, a sum over both, makes buffer 11. Returns where they are reached.
  std::vector<std::string> StartTwoThatReduce() {
    std::vector<std::string> addresses;
    for (int w = 0; w < 2; ++w) StartWorker(w);
    for (int w = 0; w < 2; ++w) addresses.push_back(Welcome(w, 1 + w).data_address());
    OpenEpoch(1, {1, 2}, addresses);
    for (int w = 0; w < 2; ++w) {
      Program(w, 1, kSum, {0, 1});
      head_.Send(w, BuildFloats(10, {0, 1}, {{w, {1.0f + w, 2}}}));
      head_.Send(w, LaunchOf(1, 1, 1, {10}, {11}));
    }
    return addresses;
  }
  FakeHead::Answer Fetch(int w, uint64_t buffer) {
    head_.Send(w, FetchOf(++request_, buffer, {w}));
    auto answer = head_.WaitReply(w, request_);
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.ok() ? *answer : FakeHead::Answer();
  }
  void TearDown() override {
    control::Command command;
    command.mutable_shutdown()->set_reason("test over");
    for (size_t w = 0; w < threads_.size(); ++w) head_.Send(static_cast<int>(w), command);
    for (std::thread& thread : threads_) thread.join();
  }

  device::FakeFabric fabric_;
  FakeHead head_;
  std::vector<std::thread> threads_;
  absl::Mutex mu_;
  std::vector<absl::Status> ends_ ABSL_GUARDED_BY(mu_);
  uint64_t request_ = 0;
  std::atomic<bool> overdue_{false};
};

TEST_F(WorkerTest, AnswersEveryKindOfQuestion) {
  StartWorker(0);
  const control::Hello hello = Welcome(0, 1);
  EXPECT_EQ(hello.num_devices(), 1);
  OpenEpoch(1, {1}, {hello.data_address()});
  control::Command command;
  command.mutable_compile()->set_request(500);
  command.mutable_compile()->set_code(kAddOne);
  head_.Send(0, command);
  auto compiled = head_.WaitReply(0, 500);
  ASSERT_TRUE(compiled.ok());
  EXPECT_EQ(compiled->reply.compile().name(), "add_one");
  Program(0, 1, compiled->reply.compile().serialized(), {0});
  head_.Send(0, BuildFloats(10, {0}, {{0, {1, 2}}}));
  head_.Send(0, LaunchOf(1, 1, 0, {10}, {11}, 501));
  EXPECT_EQ(head_.WaitReply(0, 501)->reply.status().code(), 0);
  EXPECT_EQ(ToFloats(Fetch(0, 11).data[0]), (std::vector<float>{2, 3}));
  command.mutable_introspect()->set_request(502);
  command.mutable_introspect()->set_program(1);
  command.mutable_introspect()->set_what("text");
  head_.Send(0, command);
  EXPECT_EQ(head_.WaitReply(0, 502)->reply.status().code(), 0);
  command.mutable_ping()->set_number(9);
  head_.Send(0, command);
  auto pong = head_.WaitEvent(0, [](const control::Event& e) { return e.has_pong(); });
  ASSERT_TRUE(pong.ok());
  EXPECT_EQ(pong->pong().number(), 9u);
  EXPECT_GT(pong->pong().threads(), 0);
  EXPECT_EQ(pong->pong().compiles(), 1);
}

TEST_F(WorkerTest, ACompileWaitsForTheFirstEpoch) {
  StartWorker(0);
  const control::Hello hello = Welcome(0, 1);
  control::Command command;
  command.mutable_compile()->set_request(500);
  command.mutable_compile()->set_code(kAddOne);
  head_.Send(0, command);
  // The worker has read it.
  command.mutable_ping()->set_number(1);
  head_.Send(0, command);
  ASSERT_TRUE(head_.WaitEvent(0, [](const control::Event& e) { return e.has_pong(); }).ok());
  OpenEpoch(1, {1}, {hello.data_address()});
  auto compiled = head_.WaitReply(0, 500);
  ASSERT_TRUE(compiled.ok());
  EXPECT_EQ(compiled->reply.status().code(), 0) << compiled->reply.status().message();
  EXPECT_EQ(compiled->reply.compile().name(), "add_one");
}

TEST_F(WorkerTest, ATransferMayFailWithoutACause) {
  StartWorker(0);
  OpenEpoch(1, {1}, {Welcome(0, 1).data_address()});
  control::Command build = BuildFloats(10, {0}, {{0, {0, 0}}});
  build.mutable_build()->mutable_shards(0)->set_transfer(5);
  head_.Send(0, build);
  control::Command fail;
  fail.mutable_fail_transfer()->set_transfer(5);
  head_.Send(0, fail);
  const FakeHead::Answer answer = Fetch(0, 10);
  EXPECT_EQ(answer.reply.status().code(), static_cast<int>(absl::StatusCode::kUnknown));
  EXPECT_EQ(answer.reply.status().message(), "no cause was given: ");
}

TEST_F(WorkerTest, WorkersReduceSendAndBreakOff) {
  const std::vector<std::string> addresses = StartTwoThatReduce();
  for (int w = 0; w < 2; ++w) {
    EXPECT_EQ(ToFloats(Fetch(w, 11).data[w]), (std::vector<float>{3, 4}));
    EXPECT_TRUE(head_.WaitEvent(w, [](const control::Event& e) {
                       return e.has_launch_done() && e.launch_done().seq() == 1;
                     }).ok());
  }
  // Worker 0 sends its buffer to worker 1, whose Build came first.
  control::Command build = BuildFloats(20, {1}, {{1, {0, 0}}});
  build.mutable_build()->mutable_shards(0)->set_transfer((uint64_t{1} << 48) + 1);
  head_.Send(1, build);
  control::Command send;
  send.mutable_send()->set_transfer((uint64_t{1} << 48) + 1);
  send.mutable_send()->set_buffer(10);
  send.mutable_send()->set_to_worker(1);
  send.mutable_send()->set_whole(true);
  head_.Send(0, send);
  EXPECT_EQ(ToFloats(Fetch(1, 20).data[1]), (std::vector<float>{1, 2}));
  // A collective whose peer never comes is broken off, and the next epoch works.
  head_.Send(0, LaunchOf(1, 1, 2, {10}, {12}));
  control::Command abort;
  abort.mutable_abort_epoch()->set_epoch(1);
  abort.mutable_abort_epoch()->mutable_cause()->set_code(15);
  abort.mutable_abort_epoch()->mutable_cause()->set_message("slice 1 is lost");
  head_.Send(0, abort);
  OpenEpoch(2, {3, 0}, {addresses[0], ""});
  EXPECT_NE(Fetch(0, 12).reply.status().code(), 0);
  EXPECT_EQ(ToFloats(Fetch(0, 10).data[0]), (std::vector<float>{1, 2}));
}

TEST_F(WorkerTest, ALaunchThatDoesNotEndAfterAFailedCallbackIsBrokenOff) {
  StartTwoThatReduce();
  for (int w = 0; w < 2; ++w) EXPECT_EQ(Fetch(w, 11).reply.status().code(), 0);
  head_.Send(0, LaunchOf(1, 1, 2, {11}, {12}));  // without its peer
  EXPECT_EQ(Fetch(0, 10).reply.status().code(), 0);  // it has begun
  overdue_ = true;
  control::Command ping;
  ping.mutable_ping()->set_number(1);
  head_.Send(0, ping);
  auto failed = head_.WaitEvent(0, [](const control::Event& e) { return e.has_launch_failed(); });
  ASSERT_TRUE(failed.ok());
  EXPECT_EQ(failed->launch_failed().seq(), 2u);
  EXPECT_EQ(failed->launch_failed().status().message(), "a callback");
  control::Command abort;
  abort.mutable_abort_epoch()->set_epoch(1);
  *abort.mutable_abort_epoch()->mutable_cause() = failed->launch_failed().status();
  head_.Send(0, abort);
  EXPECT_NE(Fetch(0, 12).reply.status().code(), 0);
  overdue_ = false;
}

TEST_F(WorkerTest, AnotherLifeStartsEmpty) {
  StartWorker(0);
  OpenEpoch(1, {1}, {Welcome(0, 1).data_address()});
  head_.Send(0, BuildFloats(10, {0}, {{0, {1, 2}}}));
  EXPECT_EQ(ToFloats(Fetch(0, 10).data[0]), (std::vector<float>{1, 2}));
  control::Command abort;
  abort.mutable_abort_epoch()->set_epoch(1);
  head_.Send(0, abort);
  head_.DropStreams();
  OpenEpoch(1, {2}, {Welcome(0, 2).data_address()});
  EXPECT_NE(Fetch(0, 10).reply.status().code(), 0);
  Program(0, 1, kSum, {0});
  head_.Send(0, BuildFloats(10, {0}, {{0, {1, 2}}}));
  head_.Send(0, LaunchOf(1, 1, 1, {10}, {11}));
  EXPECT_EQ(ToFloats(Fetch(0, 11).data[0]), (std::vector<float>{1, 2}));
}

TEST_F(WorkerTest, TheSameLifeKeepsItsBuffers) {
  StartWorker(0);
  OpenEpoch(1, {1}, {Welcome(0, 7).data_address()});
  head_.Send(0, BuildFloats(10, {0}, {{0, {1, 2}}}));
  EXPECT_EQ(ToFloats(Fetch(0, 10).data[0]), (std::vector<float>{1, 2}));
  head_.DropStreams();
  Welcome(0, 7);
  EXPECT_EQ(ToFloats(Fetch(0, 10).data[0]), (std::vector<float>{1, 2}));
}

TEST(WorkerWithoutHeadTest, EndsWithAReason) {
  WorkerOptions options;
  options.head = "127.0.0.1:1";
  options.connect_timeout = absl::Milliseconds(1);
  device::FakeFabric fabric;
  const absl::Status end = RunWorker(options, [&fabric](std::function<bool(int, int)>) {
    return absl::StatusOr<std::unique_ptr<device::Device>>(
        std::make_unique<device::FakeDevice>(1, &fabric));
  });
  EXPECT_EQ(end.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(end.message().find("127.0.0.1:1"), absl::string_view::npos);
}

}  // namespace
}  // namespace causeway::worker::testing
