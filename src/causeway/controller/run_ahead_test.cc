// How far a session may run ahead of its workers, and what becomes of a dishonest worker's events.
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "causeway/base/limits.h"
#include "causeway/controller/controller.h"
#include "control.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::controller {
namespace {

class FakeMembership : public Membership {
 public:
  absl::StatusOr<int> NewNode(WorkerId) override { return ++next_; }
  int num_nodes() const override { return 100; }
  void EpochChanged(EpochId, const absl::Status&) override {}

 private:
  int next_ = 0;
};

class FakeLink : public core::WorkerLink {
 public:
  void Send(std::shared_ptr<const std::string> command) override {
    control::Command parsed;
    ASSERT_TRUE(parsed.ParseFromString(*command));
    commands.push_back(std::move(parsed));
  }
  void SendData(TransferId, absl::StatusOr<absl::Cord>) override {}
  void Close(absl::string_view reason) override { closed = std::string(reason); }
  int64_t queued_bytes() const override { return 0; }
  std::deque<control::Command> commands;
  std::string closed;
};

class Bytes : public core::HostBytes {
 public:
  explicit Bytes(bool here = true) : here_(here) {}
  void OnReady(absl::AnyInvocable<void(absl::StatusOr<absl::Cord>) &&> done) override {
    if (here_) return std::move(done)(absl::Cord("abcd"));
    takers_.push_back(std::move(done));
  }
  void Come(const absl::StatusOr<absl::Cord>& bytes) {
    here_ = true;
    for (auto& taker : std::exchange(takers_, {})) std::move(taker)(bytes);
  }

 private:
  bool here_;
  std::vector<absl::AnyInvocable<void(absl::StatusOr<absl::Cord>) &&>> takers_;
};

class RunAheadTest : public ::testing::Test {
 protected:
  explicit RunAheadTest(int hosts = 1) : timers_(clock_), link_(std::make_shared<FakeLink>()) {
    ControllerOptions options;
    options.shape.devices_per_host = 1;
    options.shape.hosts_per_slice = hosts;
    controller_ = std::make_unique<Controller>(options, membership_, clock_, timers_, random_);
    for (int w = 0; w < hosts; ++w) {
      core::WorkerHello hello;
      hello.worker = WorkerId(w);
      hello.pid = 1 + w;
      hello.num_devices = 1;
      const auto admission =
          controller_->OnAttached(hello, w == 0 ? link_ : std::make_shared<FakeLink>());
      if (w == 0) incarnation_ = admission->incarnation;
    }
    session_ = controller_->OpenSession("test");
  }

  void Event(const control::Event& event) {
    controller_->OnEvent(WorkerId(0), incarnation_, event.SerializeAsString());
  }
  // Answers every question; returns how many there were.
  int AnswerAll() {
    int answered = 0;
    while (!link_->commands.empty()) {
      const control::Command command = std::move(link_->commands.front());
      link_->commands.pop_front();
      uint64_t request = command.await_ready().request();
      control::Event event;
      if (command.has_compile()) {
        request = command.compile().request();
        auto* output = event.mutable_reply()->mutable_compile()->add_outputs();
        output->set_dtype(3);
        output->add_dims(4);
      }
      if (command.has_launch()) request = command.launch().request();
      if (request == 0) continue;
      event.mutable_reply()->set_request(request);
      event.mutable_reply()->mutable_status();
      Event(event);
      ++answered;
    }
    return answered;
  }
  void Put(uint64_t handle) {
    core::HostShards source;
    source.shape = {4};
    source.shard_indices = {0};
    source.bytes = std::make_shared<Bytes>();
    core::ArraySpec spec{model::DType::kU8, {4},
                         model::Sharding::SingleDevice(DeviceId(0), "device"), ""};
    ASSERT_TRUE(controller_->MakeArray(session_, ArrayHandle(handle), spec, {source}).ok());
  }
  ExecutableHandle Compile() {
    ExecutableHandle handle;
    core::CompileRequest request;
    request.program = "p";
    request.devices = {DeviceId(0)};
    controller_->Compile(session_, request, [&](auto view) {
      ASSERT_TRUE(view.ok()) << view.status();
      handle = (*view)->handle;
    });
    AnswerAll();
    return handle;
  }
  bool MayGoOn() {
    absl::AnyInvocable<void() &&> resume = [this] { ++resumed_; };
    return controller_->MayGoOn(session_, resume);
  }

  FakeClock clock_;
  FakeTimers timers_;
  FakeRandom random_{1};
  FakeMembership membership_;
  std::shared_ptr<FakeLink> link_;
  std::unique_ptr<Controller> controller_;
  Incarnation incarnation_;
  SessionId session_;
  int resumed_ = 0;
};

constexpr int kAhead = limits::kWorkPerMark * limits::kMarksMax;

TEST_F(RunAheadTest, LaunchesAheadOfTheWorkerHoldTheSession) {
  const ExecutableHandle program = Compile();
  Put(1);
  AnswerAll();
  core::ExecuteRequest request;
  request.executable = program;
  request.args = {ArrayHandle(1)};
  int launches = 0;
  for (; MayGoOn() && launches < 2 * kAhead; ++launches) {
    request.results = {ArrayHandle(100 + launches)};
    ASSERT_TRUE(controller_->Execute(session_, request).ok());
  }
  EXPECT_LE(launches, kAhead);
  EXPECT_GT(launches, kAhead - limits::kWorkPerMark);
  EXPECT_EQ(resumed_, 0);
  EXPECT_EQ(AnswerAll(), limits::kMarksMax);
  EXPECT_EQ(resumed_, 1);
  EXPECT_TRUE(MayGoOn());
}

TEST_F(RunAheadTest, UploadsCountToo) {
  int uploads = 0;
  for (; MayGoOn() && uploads < 2 * kAhead; ++uploads) Put(1 + uploads);
  EXPECT_LE(uploads, kAhead);
  EXPECT_EQ(AnswerAll(), limits::kMarksMax);
  EXPECT_EQ(resumed_, 1);
}

TEST_F(RunAheadTest, ADeadWorkerLetsTheSessionGoOn) {
  for (int i = 0; MayGoOn(); ++i) Put(1 + i);
  controller_->OnDetached(WorkerId(0), incarnation_, "it died");
  EXPECT_EQ(resumed_, 1);
  EXPECT_TRUE(MayGoOn());
}

TEST_F(RunAheadTest, AClosedSessionIsWoken) {
  for (int i = 0; MayGoOn(); ++i) Put(1 + i);
  controller_->CloseSession(session_);
  EXPECT_EQ(resumed_, 1);
}

TEST_F(RunAheadTest, AnotherSessionGoesOn) {
  for (int i = 0; MayGoOn(); ++i) Put(1 + i);
  session_ = controller_->OpenSession("neighbour");
  EXPECT_TRUE(MayGoOn());
}

// Two workers: their launches have one order for all sessions.
class UploadOrderTest : public RunAheadTest {
 protected:
  UploadOrderTest() : RunAheadTest(/*hosts=*/2) {}

  // An array over both workers, one buffer for each of its two shards.
  void PutOnBoth(uint64_t handle, std::shared_ptr<Bytes> first, std::shared_ptr<Bytes> second) {
    core::ArraySpec spec{model::DType::kU8, {8}, Rows(), ""};
    std::vector<core::HostShards> sources(2);
    for (int i = 0; i < 2; ++i) {
      sources[i].shape = {4};
      sources[i].shard_indices = {i};
      sources[i].bytes = i == 0 ? first : second;
    }
    ASSERT_TRUE(controller_->MakeArray(session_, ArrayHandle(handle), spec, sources).ok());
  }
  static model::ShardingRef Rows() {
    model::OpSharding op;
    op.type = model::OpSharding::Type::kOther;
    op.tile_dims = {2};
    return *model::Sharding::Hlo({DeviceId(0), DeviceId(1)}, "device", std::move(op));
  }
  ExecutableHandle CompileForBoth() {
    ExecutableHandle handle;
    core::CompileRequest request;
    request.program = "both";
    request.devices = {DeviceId(0), DeviceId(1)};
    controller_->Compile(session_, request, [&](auto view) {
      ASSERT_TRUE(view.ok()) << view.status();
      handle = (*view)->handle;
    });
    AnswerAll();
    return handle;
  }
  bool MayExecute(ExecutableHandle program, uint64_t arg) {
    return controller_->MayExecute(session_, program, {ArrayHandle(arg)}, [this] { ++resumed_; });
  }
  absl::Status Execute(ExecutableHandle program, uint64_t arg, uint64_t result) {
    core::ExecuteRequest request;
    request.executable = program;
    request.args = {ArrayHandle(arg)};
    request.results = {ArrayHandle(result)};
    return controller_->Execute(session_, request).status();
  }
};

TEST_F(UploadOrderTest, AGangLaunchWaitsForItsBytesAndHoldsUpNobodyElse) {
  const ExecutableHandle program = CompileForBoth();
  auto here = std::make_shared<Bytes>(), late = std::make_shared<Bytes>(/*here=*/false);
  PutOnBoth(1, here, here);
  PutOnBoth(2, here, late);
  EXPECT_TRUE(MayExecute(program, 1));
  EXPECT_FALSE(MayExecute(program, 2));
  // What is made of it waits as well: a view, a copy.
  ASSERT_TRUE(controller_
                  ->CopyArrays(session_, {ArrayHandle(2)}, {DeviceId(1), DeviceId(0)},
                               std::nullopt, core::CopySemantics::kReuseInput, {ArrayHandle(3)})
                  .ok());
  EXPECT_FALSE(MayExecute(program, 3));
  // What does not need it goes ahead, in this session and in others.
  EXPECT_TRUE(Execute(program, 1, 10).ok());
  EXPECT_TRUE(MayExecute(program, 10));
  const SessionId stalled = session_;
  session_ = controller_->OpenSession("neighbour");
  const ExecutableHandle theirs = CompileForBoth();
  PutOnBoth(1, here, here);
  EXPECT_TRUE(MayExecute(theirs, 1));
  EXPECT_TRUE(Execute(theirs, 1, 10).ok());
  session_ = stalled;

  EXPECT_EQ(resumed_, 0);
  late->Come(absl::Cord("abcd"));
  EXPECT_EQ(resumed_, 2);
  EXPECT_TRUE(MayExecute(program, 2));
  EXPECT_TRUE(MayExecute(program, 3));
  EXPECT_TRUE(Execute(program, 2, 11).ok());
}

TEST_F(UploadOrderTest, BytesThatWillNeverComeFailTheirArrayAndLaunchNothing) {
  const ExecutableHandle program = CompileForBoth();
  auto late = std::make_shared<Bytes>(/*here=*/false);
  PutOnBoth(1, late, late);
  EXPECT_FALSE(MayExecute(program, 1));
  late->Come(absl::DataLossError("the client broke its upload off"));
  EXPECT_EQ(resumed_, 1);
  EXPECT_TRUE(MayExecute(program, 1));
  link_->commands.clear();
  (void)Execute(program, 1, 10);
  for (const control::Command& command : link_->commands) EXPECT_FALSE(command.has_launch());
  absl::Status read;
  controller_->AwaitReady(session_, {ArrayHandle(10)}, [&](absl::Status s) { read = s; });
  EXPECT_THAT(read.message(), ::testing::HasSubstr("broke its upload off"));
}

TEST_F(UploadOrderTest, ALaunchOnOneWorkerNeedsNoPlace) {
  const ExecutableHandle program = Compile();
  auto late = std::make_shared<Bytes>(/*here=*/false);
  core::HostShards source;
  source.shape = {4};
  source.shard_indices = {0};
  source.bytes = late;
  core::ArraySpec spec{model::DType::kU8, {4},
                       model::Sharding::SingleDevice(DeviceId(0), "device"), ""};
  ASSERT_TRUE(controller_->MakeArray(session_, ArrayHandle(1), spec, {source}).ok());
  EXPECT_TRUE(MayExecute(program, 1));
}

TEST_F(RunAheadTest, AWorkerWithoutAFailuresReasonIsSentAway) {
  control::Event event;
  event.mutable_launch_failed()->set_epoch(1);
  event.mutable_launch_failed()->set_seq(1);
  Event(event);
  EXPECT_THAT(link_->closed, ::testing::HasSubstr("failed with OK"));
}

TEST_F(RunAheadTest, PongsFromTheFutureDoNotKeepAWorkerAlive) {
  control::Event event;
  event.mutable_pong()->set_number(~uint64_t{0});
  Event(event);
  timers_.Advance(absl::Minutes(5));
  EXPECT_THAT(link_->closed, ::testing::HasSubstr("heartbeats"));
}

}  // namespace
}  // namespace causeway::controller
