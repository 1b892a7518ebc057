// Tests of the controller against scripted workers: order, gates, loss, epochs, memory.
#include "causeway/controller/controller.h"

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "causeway/callbacks/frame.h"
#include "causeway/wire/text_array.h"
#include "control.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::controller {
namespace {

using ::testing::HasSubstr;

class FakeMembership : public Membership {
 public:
  absl::StatusOr<int> NewNode(WorkerId worker) override { return ++next_; }
  int num_nodes() const override { return 100; }
  void EpochChanged(EpochId, const absl::Status&) override { ++epochs; }
  int epochs = 0;

 private:
  int next_ = 0;
};

class FakeLink : public core::WorkerLink {
 public:
  void Send(std::shared_ptr<const std::string> command) override {
    control::Command parsed;
    ASSERT_TRUE(parsed.ParseFromString(*command));
    raw.push_back(*command);
    commands.push_back(std::move(parsed));
  }
  void SendData(TransferId transfer, absl::StatusOr<absl::Cord> bytes) override {
    data.emplace(transfer, std::move(bytes));
  }
  void Close(absl::string_view reason) override { closed = std::string(reason); }
  int64_t queued_bytes() const override { return 0; }

  std::vector<control::Command> Of(control::Command::CommandCase kind) const {
    std::vector<control::Command> out;
    for (const auto& c : commands) {
      if (c.command_case() == kind) out.push_back(c);
    }
    return out;
  }
  std::deque<control::Command> commands;
  std::vector<std::string> raw;
  std::map<TransferId, absl::StatusOr<absl::Cord>> data;
  std::string closed;
};

// In memory, and shared by the controllers of one test.
class FakeCompileCache : public CompileCache {
 public:
  void Find(std::string key, Found done) override {
    const auto it = entries.find(key);
    ++(it == entries.end() ? status.misses : status.hits);
    std::optional<std::string> found;
    if (it != entries.end()) found = it->second;
    std::move(done)(std::move(found));
  }
  void Store(std::string key, std::string contents) override {
    entries[std::move(key)] = std::move(contents);
  }
  core::CompileCacheStatus Status() override { return status; }
  std::map<std::string, std::string> entries;
  core::CompileCacheStatus status;
};

class Bytes : public core::HostBytes {
 public:
  explicit Bytes(std::string text) : text_(std::move(text)) {}
  void OnReady(absl::AnyInvocable<void(absl::StatusOr<absl::Cord>) &&> done) override {
    std::move(done)(absl::Cord(text_));
  }

 private:
  std::string text_;
};

class ControllerTest : public ::testing::Test {
 protected:
  ControllerTest() : timers_(clock_) { StartController(); }

  // Also another one in the place of the first, on a new cluster of the same shape.
  void StartController(const std::string& runtime = "jaxlib 1") {
    runtime_ = runtime;
    ControllerOptions options;
    options.shape.slices = 2;
    options.shape.devices_per_host = 2;
    options.max_programs = 4;
    options.max_program_bytes = 1000;
    options.compile_cache = &cache_;
    options.callbacks_gone = [this](const std::string&, uint64_t group) {
      callbacks_gone_.push_back(group);
    };
    controller_ =
        std::make_unique<Controller>(options, membership_, clock_, timers_, random_);
    Attach(0);
    Attach(1);
    session_ = controller_->OpenSession("test");
  }

  core::WorkerHello Hello(int w) const {
    core::WorkerHello hello;
    hello.worker = WorkerId(w);
    hello.pid = 100 + w;
    hello.host = "here";
    hello.num_devices = 2;
    hello.memory_kinds = {"device"};
    hello.runtime_version = runtime_;
    return hello;
  }
  void Attach(int w) { Attach(w, 100 + w); }
  void Attach(int w, int pid) {
    links_[w] = std::make_shared<FakeLink>();
    core::WorkerHello hello = Hello(w);
    hello.pid = pid;
    auto admission = controller_->OnAttached(hello, links_[w]);
    ASSERT_TRUE(admission.ok()) << admission.status();
    incarnations_[w] = admission->incarnation;
    control::Event event;
    event.mutable_epoch_opened()->set_epoch(
        links_[w]->Of(control::Command::kOpenEpoch).back().open_epoch().epoch());
    Send(w, event);
  }
  void Send(int w, const control::Event& event) {
    controller_->OnEvent(WorkerId(w), incarnations_[w], event.SerializeAsString());
  }
  void Reply(int w, uint64_t request, absl::Status status = absl::OkStatus()) {
    control::Event event;
    event.mutable_reply()->set_request(request);
    event.mutable_reply()->mutable_status()->set_code(static_cast<int>(status.code()));
    event.mutable_reply()->mutable_status()->set_message(std::string(status.message()));
    Send(w, event);
  }
  void Confirm(int w, uint64_t seq, uint64_t epoch = 1) {
    control::Event event;
    event.mutable_launch_done()->set_epoch(epoch);
    event.mutable_launch_done()->set_seq(seq);
    Send(w, event);
  }
  void Data(int w, uint64_t request, int device, const std::string& bytes) {
    control::Event event;
    event.mutable_fetch_data()->set_request(request);
    event.mutable_fetch_data()->set_device(device);
    event.mutable_fetch_data()->set_total(bytes.size());
    event.mutable_fetch_data()->set_bytes(bytes);
    Send(w, event);
  }

  static std::vector<DeviceId> Devices(int n) {
    std::vector<DeviceId> out;
    for (int i = 0; i < n; ++i) out.push_back(DeviceId(i));
    return out;
  }
  static model::ShardingRef Replicated(int n) {
    return *model::Sharding::Hlo(Devices(n), "device", model::OpSharding());
  }
  void Put(uint64_t handle, int devices, const std::string& bytes) {
    core::HostShards source;
    source.shape = {static_cast<int64_t>(bytes.size())};
    for (int i = 0; i < devices; ++i) source.shard_indices.push_back(i);
    source.bytes = std::make_shared<Bytes>(bytes);
    core::ArraySpec spec{model::DType::kU8, source.shape, Replicated(devices), ""};
    EXPECT_TRUE(controller_->MakeArray(session_, ArrayHandle(handle), spec, {source}).ok());
  }
  // A program of one input and one replicated output u8[4] over `devices`; donates its input.
  std::shared_ptr<const core::ExecutableView> Compile(int devices, bool donate = false,
                                                      const std::string& text = "program",
                                                      const std::string& compiled = "blob") {
    core::CompileRequest request;
    request.program = text;
    request.devices = Devices(devices);
    std::shared_ptr<const core::ExecutableView> view;
    controller_->Compile(session_, request, [&](auto result) {
      ASSERT_TRUE(result.ok()) << result.status();
      view = *result;
    });
    for (int w = 0; w < 2; ++w) {
      for (const auto& c : links_[w]->Of(control::Command::kCompile)) {
        if (view != nullptr) break;
        control::Event event;
        event.mutable_reply()->set_request(c.compile().request());
        control::CompileResult* result = event.mutable_reply()->mutable_compile();
        result->set_name("f");
        result->set_serialized(compiled);
        result->add_outputs()->set_dtype(static_cast<int>(model::DType::kU8));
        result->mutable_outputs(0)->add_dims(4);
        if (donate) result->add_donated_inputs(0);
        Send(w, event);
      }
    }
    EXPECT_NE(view, nullptr);
    return view;
  }
  absl::Status Run(const core::ExecutableView& view, uint64_t arg, uint64_t result) {
    core::ExecuteRequest request;
    request.executable = view.handle;
    request.args = {ArrayHandle(arg)};
    request.results = {ArrayHandle(result)};
    return controller_->Execute(session_, request).status();
  }
  struct Read {
    bool done = false;
    absl::StatusOr<absl::Cord> value = absl::UnknownError("pending");
  };
  std::shared_ptr<Read> Fetch(uint64_t handle) {
    auto read = std::make_shared<Read>();
    controller_->CopyToHost(session_, ArrayHandle(handle), std::nullopt,
                            [read](absl::StatusOr<absl::Cord> value) {
                              read->done = true;
                              read->value = std::move(value);
                            });
    return read;
  }
  int64_t Gauge(const std::string& name) { return controller_->GetStatus().gauges[name]; }

  FakeClock clock_;
  FakeTimers timers_;
  FakeRandom random_{7};
  FakeMembership membership_;
  FakeCompileCache cache_;
  std::string runtime_;
  std::unique_ptr<Controller> controller_;
  std::map<int, std::shared_ptr<FakeLink>> links_;
  std::map<int, Incarnation> incarnations_;
  SessionId session_;
  std::vector<uint64_t> callbacks_gone_;
};

TEST_F(ControllerTest, CompletesWhenEveryWorkerIsInTheEpoch) {
  EXPECT_TRUE(controller_->Complete());
  EXPECT_EQ(controller_->Describe().devices.size(), 4);
}

TEST_F(ControllerTest, AMemberHearsOfNewcomersWhenItNeedsThem) {
  const auto told = [this] { return links_[0]->Of(control::Command::kSetNodes); };
  for (int pid = 201; pid < 204; ++pid) {
    controller_->OnDetached(WorkerId(1), incarnations_[1], "it left");
    ASSERT_EQ(told().size(), static_cast<size_t>(pid - 200)) << "a loss is told at once";
    Attach(1, pid);
    ASSERT_EQ(told().size(), static_cast<size_t>(pid - 200)) << "a newcomer is not";
  }
  const auto program = Compile(4);
  Put(1, 4, "abcd");
  ASSERT_TRUE(Run(*program, 1, 2).ok());
  ASSERT_EQ(told().size(), 4u);
  ASSERT_TRUE(Run(*program, 1, 3).ok());
  ASSERT_EQ(told().size(), 4u);
  EXPECT_NE(told().back().set_nodes().nodes().node(1), 0);
}

TEST_F(ControllerTest, ALaunchIsEncodedOnceAndNeedsNoAnswer) {
  auto view = Compile(4);
  Put(1, 4, "abcd");
  EXPECT_TRUE(Run(*view, 1, 2).ok());
  EXPECT_TRUE(Run(*view, 2, 3).ok());
  EXPECT_EQ(links_[0]->raw.back(), links_[1]->raw.back());
  const auto launches = links_[0]->Of(control::Command::kLaunch);
  ASSERT_EQ(launches.size(), 2);
  EXPECT_EQ(launches[0].launch().seq() + 1, launches[1].launch().seq());
  EXPECT_EQ(launches[0].launch().outputs(0), launches[1].launch().args(0));
}

TEST_F(ControllerTest, AResultIsHeldBackUntilEveryMemberConfirmed) {
  auto view = Compile(4);
  Put(1, 4, "abcd");
  ASSERT_TRUE(Run(*view, 1, 2).ok());
  auto read = Fetch(2);
  const auto fetch = links_[0]->Of(control::Command::kFetch).back().fetch();
  Data(0, fetch.request(), 0, "wxyz");
  Reply(0, fetch.request());
  EXPECT_FALSE(read->done);
  Confirm(0, 1);
  EXPECT_FALSE(read->done);
  Confirm(1, 1);
  ASSERT_TRUE(read->done);
  ASSERT_TRUE(read->value.ok());
  EXPECT_EQ(std::string(*read->value), "wxyz");
}

TEST_F(ControllerTest, TheLastMemberToArriveLetsAllProceed) {
  auto f = Compile(4);
  Put(1, 4, "abcd");
  ASSERT_TRUE(Run(*f, 1, 2).ok());
  auto arrive = [this](int w, uint64_t seq, uint64_t epoch = 1) {
    control::Event event;
    event.mutable_at_rendezvous()->set_epoch(epoch);
    event.mutable_at_rendezvous()->set_seq(seq);
    Send(w, event);
  };
  arrive(0, 1);
  arrive(0, 1);     // said twice
  arrive(1, 7);     // no such launch
  arrive(1, 1, 9);  // another epoch
  EXPECT_TRUE(links_[0]->Of(control::Command::kProceed).empty());
  arrive(1, 1);
  for (int w = 0; w < 2; ++w) {
    const auto proceeds = links_[w]->Of(control::Command::kProceed);
    ASSERT_EQ(proceeds.size(), 1u);
    EXPECT_EQ(proceeds[0].proceed().seq(), 1u);
  }
}

TEST_F(ControllerTest, AOneSidedFailureSpoilsLaterLaunchesNeverTheirValues) {
  auto view = Compile(4);
  Put(1, 4, "abcd");
  ASSERT_TRUE(Run(*view, 1, 2).ok());
  ASSERT_TRUE(Run(*view, 2, 3).ok());
  auto read = Fetch(3);
  const auto fetch = links_[0]->Of(control::Command::kFetch).back().fetch();
  Data(0, fetch.request(), 0, "evil");
  Reply(0, fetch.request());
  Confirm(0, 2);
  control::Event failed;
  failed.mutable_launch_failed()->set_epoch(1);
  failed.mutable_launch_failed()->set_seq(1);
  failed.mutable_launch_failed()->mutable_status()->set_code(8);
  failed.mutable_launch_failed()->mutable_status()->set_message("out of memory");
  Send(1, failed);
  ASSERT_TRUE(read->done);
  EXPECT_EQ(read->value.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(read->value.status().message()), HasSubstr("worker 1"));
  EXPECT_EQ(membership_.epochs, 1);
  EXPECT_EQ(links_[0]->Of(control::Command::kOpenEpoch).back().open_epoch().epoch(), 2);
  // The input was not spoiled: the same program runs in the new epoch.
  EXPECT_TRUE(Run(*view, 1, 4).ok());
  EXPECT_EQ(links_[0]->Of(control::Command::kLaunch).back().launch().epoch(), 2);
}

TEST_F(ControllerTest, APeerFailureWaitsForItsCause) {
  auto view = Compile(4);
  Put(1, 4, "abcd");
  ASSERT_TRUE(Run(*view, 1, 2).ok());
  auto read = Fetch(2);
  control::Event failed;
  failed.mutable_launch_failed()->set_epoch(1);
  failed.mutable_launch_failed()->set_seq(1);
  failed.mutable_launch_failed()->set_peer_failure(true);
  failed.mutable_launch_failed()->mutable_status()->set_code(15);
  failed.mutable_launch_failed()->mutable_status()->set_message("Connection closed by peer");
  Send(0, failed);
  controller_->OnDetached(WorkerId(1), incarnations_[1], "its process ended");
  const auto fetch = links_[0]->Of(control::Command::kFetch).back().fetch();
  Reply(0, fetch.request(), absl::DataLossError("Connection closed by peer"));
  ASSERT_TRUE(read->done);
  EXPECT_EQ(read->value.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(read->value.status().message()), HasSubstr("slice 1 lost"));
  timers_.Advance(absl::Seconds(1));
  EXPECT_EQ(membership_.epochs, 1);
}

TEST_F(ControllerTest, LossNamesTheSliceAndSparesTheRest) {
  Put(1, 2, "keep");
  Put(2, 4, "both");
  auto view = Compile(4);
  ASSERT_TRUE(Run(*view, 2, 3).ok());
  Confirm(0, 1);
  Confirm(1, 1);
  controller_->OnDetached(WorkerId(1), incarnations_[1], "its process was killed");
  // On worker 0 alone: still there.
  auto keep = Fetch(1);
  const auto fetch = links_[0]->Of(control::Command::kFetch).back().fetch();
  Data(0, fetch.request(), 0, "keep");
  Reply(0, fetch.request());
  ASSERT_TRUE(keep->done && keep->value.ok());
  // Replicated: read from the replica that is left.
  auto both = Fetch(3);
  EXPECT_EQ(links_[0]->Of(control::Command::kFetch).back().fetch().devices(0), 0);
  // A launch that needs the lost slice says OK and gives results that carry the loss.
  EXPECT_TRUE(Run(*view, 2, 4).ok());
  auto lost = Fetch(4);
  ASSERT_TRUE(lost->done);
  EXPECT_EQ(lost->value.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(lost->value.status().message()), HasSubstr("slice 1 lost"));
  // It comes back: new arrays work, old ones stay lost.
  Attach(1);
  Put(5, 4, "anew");
  EXPECT_TRUE(Run(*view, 5, 6).ok());
  EXPECT_EQ(links_[1]->Of(control::Command::kLaunch).size(), 1);
  EXPECT_TRUE(Run(*view, 2, 7).ok());
  EXPECT_EQ(links_[1]->Of(control::Command::kLaunch).size(), 1);
}

TEST_F(ControllerTest, WhoAwaitsEveryLaunchIsToldWithoutAQuestion) {
  Put(1, 2, "abcd");
  const auto view = Compile(2);
  absl::Status ready;
  auto run_and_wait = [&](uint64_t result) {
    EXPECT_TRUE(Run(*view, 1, result).ok());
    ready = absl::UnknownError("pending");
    controller_->AwaitReady(session_, {ArrayHandle(result)}, [&](absl::Status s) { ready = s; });
    return links_[0]->Of(control::Command::kLaunch).back().launch().request();
  };
  for (uint64_t result = 2; result < 4; ++result) {
    EXPECT_EQ(run_and_wait(result), 0u);
    Reply(0, links_[0]->Of(control::Command::kAwaitReady).back().await_ready().request());
    EXPECT_TRUE(ready.ok());
  }
  // It will wait for the third one too: the launch itself says where to report its end.
  const uint64_t third = run_and_wait(4);
  EXPECT_NE(third, 0u);
  EXPECT_EQ(links_[0]->Of(control::Command::kAwaitReady).size(), 2u);
  EXPECT_EQ(ready.code(), absl::StatusCode::kUnknown);
  Reply(0, third);
  EXPECT_TRUE(ready.ok());
  // A failure reaches the one who waits, who reads, and who computes on.
  Reply(0, run_and_wait(5), absl::ResourceExhaustedError("no memory"));
  EXPECT_EQ(ready, absl::ResourceExhaustedError("no memory"));
  auto read = Fetch(5);
  Reply(0, links_[0]->Of(control::Command::kFetch).back().fetch().request(), ready);
  EXPECT_EQ(read->value.status(), ready);
  EXPECT_EQ(Run(*view, 5, 6), ready);
  // So does the worker's death.
  run_and_wait(7);
  controller_->OnDetached(WorkerId(0), incarnations_[0], "killed");
  EXPECT_EQ(ready.code(), absl::StatusCode::kDataLoss);
}

TEST_F(ControllerTest, WhoRunsAheadIsNotToldOfEveryLaunch) {
  Put(1, 2, "abcd");
  const auto view = Compile(2);
  for (uint64_t result = 2; result < 6; ++result) {
    ASSERT_TRUE(Run(*view, 1, result).ok());
    controller_->AwaitReady(session_, {ArrayHandle(result)}, [](absl::Status) {});
  }
  ASSERT_NE(links_[0]->Of(control::Command::kLaunch).back().launch().request(), 0u);
  ASSERT_TRUE(Run(*view, 1, 6).ok());
  for (uint64_t result = 7; result < 10; ++result) {
    ASSERT_TRUE(Run(*view, 1, result).ok());
    EXPECT_EQ(links_[0]->Of(control::Command::kLaunch).back().launch().request(), 0u);
  }
}

TEST_F(ControllerTest, AReplicaThatItsWorkerReportsAsLostIsNotUsed) {
  Put(1, 4, "both");
  absl::Status ready;
  controller_->AwaitReady(session_, {ArrayHandle(1)}, [&](absl::Status s) { ready = s; });
  Reply(0, links_[0]->Of(control::Command::kAwaitReady).back().await_ready().request(),
        absl::DataLossError("its bytes did not come"));
  Reply(1, links_[1]->Of(control::Command::kAwaitReady).back().await_ready().request());
  EXPECT_EQ(ready, absl::DataLossError("its bytes did not come"));
  // Nobody is asked again, and reads go to the other worker.
  controller_->AwaitReady(session_, {ArrayHandle(1)}, [&](absl::Status s) { ready = s; });
  EXPECT_EQ(links_[0]->Of(control::Command::kAwaitReady).size(), 1);
  EXPECT_EQ(ready, absl::DataLossError("its bytes did not come"));
  auto both = Fetch(1);
  EXPECT_TRUE(links_[0]->Of(control::Command::kFetch).empty());
  EXPECT_EQ(links_[1]->Of(control::Command::kFetch).back().fetch().devices(0), 2);
}

TEST_F(ControllerTest, WhatIsReplicatedMovesFromTheReplicasThatAreLeft) {
  Put(1, 4, "both");
  controller_->OnDetached(WorkerId(1), incarnations_[1], "its process was killed");
  // Onto one device of worker 0, which holds a replica.
  core::ArraySpec target{model::DType::kU8, {4}, Replicated(1), ""};
  ASSERT_TRUE(controller_
                  ->ReshardArrays(session_, {ArrayHandle(1)}, {target},
                                  core::CopySemantics::kAlwaysCopy, {ArrayHandle(2)})
                  .ok());
  const auto build = links_[0]->Of(control::Command::kBuild).back().build();
  EXPECT_EQ(build.shards(0).copy().device(), 0);
  auto read = Fetch(2);
  const auto fetch = links_[0]->Of(control::Command::kFetch).back().fetch();
  Data(0, fetch.request(), 0, "both");
  Reply(0, fetch.request());
  ASSERT_TRUE(read->done && read->value.ok());
  // Back to all devices: worker 1 has returned, and gets its part from worker 0.
  Attach(1);
  target.sharding = Replicated(4);
  ASSERT_TRUE(controller_
                  ->ReshardArrays(session_, {ArrayHandle(1)}, {target},
                                  core::CopySemantics::kAlwaysCopy, {ArrayHandle(3)})
                  .ok());
  ASSERT_EQ(links_[0]->Of(control::Command::kSend).size(), 2);
  EXPECT_EQ(links_[0]->Of(control::Command::kSend)[0].send().to_worker(), 1);
  EXPECT_TRUE(links_[1]->Of(control::Command::kSend).empty());
}

TEST_F(ControllerTest, ALossIsToldOnceWithItsVictimsCounted) {
  for (uint64_t handle = 1; handle <= 3; ++handle) Put(handle, 4, "both");
  Put(9, 2, "keep");
  EXPECT_EQ(controller_->events().last(), 0);
  controller_->OnDetached(WorkerId(1), incarnations_[1], "killed by signal 9 (SIGKILL)");
  const core::EventBatch lost = controller_->events().After(0, absl::ZeroDuration());
  ASSERT_EQ(lost.events.size(), 1);
  EXPECT_EQ(lost.events[0].kind, "lost");
  EXPECT_EQ(lost.events[0].slice, 1);
  EXPECT_THAT(lost.events[0].cause, HasSubstr("pid 101 on here): killed by signal 9 (SIGKILL) at"));
  EXPECT_THAT(lost.events[0].cause, HasSubstr("; 3 arrays affected;"));
  Attach(1);
  const core::EventBatch back = controller_->events().After(1, absl::ZeroDuration());
  ASSERT_EQ(back.events.size(), 1);
  EXPECT_EQ(back.events[0].kind, "back");
  EXPECT_EQ(back.events[0].slice, 1);
}

TEST_F(ControllerTest, ALossNamesTheProcessThatHadTheValue) {
  auto lost = [this](uint64_t handle) {
    auto read = Fetch(handle);
    EXPECT_TRUE(read->done);
    EXPECT_EQ(read->value.status().code(), absl::StatusCode::kDataLoss);
    return std::string(read->value.status().message());
  };
  core::HostShards source;
  source.shape = {4};
  source.shard_indices = {0};
  auto put = [&](uint64_t handle) {
    source.bytes = std::make_shared<Bytes>("gone");
    core::ArraySpec spec{model::DType::kU8, {4},
                         model::Sharding::SingleDevice(DeviceId(2), "device"), ""};
    ASSERT_TRUE(controller_->MakeArray(session_, ArrayHandle(handle), spec, {source}).ok());
  };
  put(1);
  controller_->OnDetached(WorkerId(1), incarnations_[1], "killed by signal 9 (SIGKILL)");
  EXPECT_THAT(lost(1), HasSubstr("worker 1 (pid 101 on here): killed by signal 9 (SIGKILL) at"));
  // The place is another process's now, which has done nothing.
  Attach(1, 900);
  EXPECT_THAT(lost(1), HasSubstr("(pid 101 on here): killed by signal 9 (SIGKILL) at"));
  EXPECT_THAT(lost(1), HasSubstr("; 1 arrays affected;"));
  // When that one dies as well, each value has its own cause.
  put(2);
  controller_->OnDetached(WorkerId(1), incarnations_[1], "it answered no heartbeats");
  EXPECT_THAT(lost(1), HasSubstr("(pid 101 on here): killed by signal 9 (SIGKILL) at"));
  EXPECT_THAT(lost(2), HasSubstr("(pid 900 on here): it answered no heartbeats at"));
  // What is made there now was never anywhere: the latest cause tells why.
  put(3);
  EXPECT_THAT(lost(3), HasSubstr("(pid 900 on here)"));
}

TEST_F(ControllerTest, ASpareTakesTheNextLostPlace) {
  auto spare_link = std::make_shared<FakeLink>();
  core::WorkerHello hello = Hello(-1);
  hello.spare = true;
  hello.pid = 777;
  auto spare = controller_->OnAttached(hello, spare_link);
  ASSERT_TRUE(spare.ok()) << spare.status();
  EXPECT_TRUE(spare_link->commands.empty());
  EXPECT_EQ(Gauge("spares"), 1);
  Put(1, 4, "both");
  auto view = Compile(4);
  ASSERT_TRUE(Run(*view, 1, 2).ok());
  controller_->OnDetached(WorkerId(1), incarnations_[1], "killed by signal 9 (SIGKILL)");
  EXPECT_EQ(Gauge("spares"), 0);
  ASSERT_GE(spare_link->commands.size(), 2);
  EXPECT_EQ(spare_link->commands[0].welcome().worker(), 1);
  EXPECT_EQ(spare_link->commands[1].open_epoch().epoch(), 2);
  // Its events come under the number that it attached with.
  EXPECT_FALSE(controller_->Complete());
  control::Event opened;
  opened.mutable_epoch_opened()->set_epoch(2);
  Send(0, opened);
  controller_->OnEvent(WorkerId(-1), spare->incarnation, opened.SerializeAsString());
  EXPECT_TRUE(controller_->Complete());
  std::vector<std::string> kinds;
  for (const auto& event : controller_->events().After(0, absl::ZeroDuration()).events) {
    kinds.push_back(event.kind);
  }
  EXPECT_EQ(kinds, (std::vector<std::string>{"spare", "lost", "spare", "back"}));
  // What the dead one held is lost all the same; new arrays work.
  EXPECT_TRUE(Run(*view, 1, 3).ok());
  auto lost = Fetch(3);
  ASSERT_TRUE(lost->done);
  EXPECT_EQ(lost->value.status().code(), absl::StatusCode::kDataLoss);
  Put(5, 4, "anew");
  EXPECT_TRUE(Run(*view, 5, 6).ok());
  EXPECT_EQ(spare_link->Of(control::Command::kLaunch).size(), 1);
  // The dead one's process, started again, finds its place taken and stands by; the one that holds
  // the place may die in its turn.
  auto again = std::make_shared<FakeLink>();
  hello = Hello(1);
  hello.spare = true;
  ASSERT_TRUE(controller_->OnAttached(hello, again).ok());
  EXPECT_EQ(Gauge("spares"), 1);
  controller_->OnDetached(WorkerId(-1), spare->incarnation, "killed by signal 9 (SIGKILL)");
  EXPECT_EQ(again->Of(control::Command::kWelcome).size(), 1);
  EXPECT_EQ(Gauge("spares"), 0);
}

TEST_F(ControllerTest, ACompileGoesOnWithTheSpareThatTakesOver) {
  bool done = false;
  ControllerOptions options;
  options.shape.devices_per_host = 2;
  Controller alone(options, membership_, clock_, timers_, random_);
  auto first = std::make_shared<FakeLink>(), spare_link = std::make_shared<FakeLink>();
  const auto joined = alone.OnAttached(Hello(0), first);
  ASSERT_TRUE(joined.ok());
  core::WorkerHello hello = Hello(-1);
  hello.spare = true;
  hello.pid = 777;
  ASSERT_TRUE(alone.OnAttached(hello, spare_link).ok());
  core::CompileRequest request;
  request.program = "program";
  request.devices = Devices(2);
  alone.Compile(alone.OpenSession("test"), request, [&done](auto) { done = true; });
  ASSERT_EQ(first->Of(control::Command::kCompile).size(), 1);
  alone.OnDetached(WorkerId(0), joined->incarnation, "killed");
  EXPECT_FALSE(done) << "nobody was alive to compile on, though a spare stood by";
  EXPECT_EQ(spare_link->Of(control::Command::kCompile).size(), 1);
}

TEST_F(ControllerTest, ASpareThatGoesTakesNothing) {
  auto link = std::make_shared<FakeLink>();
  core::WorkerHello hello = Hello(-1);
  hello.spare = true;
  auto spare = controller_->OnAttached(hello, link);
  ASSERT_TRUE(spare.ok());
  controller_->OnDetached(WorkerId(-1), spare->incarnation, "killed");
  controller_->OnDetached(WorkerId(1), incarnations_[1], "killed");
  EXPECT_TRUE(link->commands.empty());
  // Where a place is empty when it comes, a spare takes it at once.
  ASSERT_TRUE(controller_->OnAttached(hello, link).ok());
  EXPECT_EQ(link->Of(control::Command::kWelcome).size(), 1);
}

TEST_F(ControllerTest, ARecoveryIsTimedByPhases) {
  EXPECT_EQ(controller_->GetStatus().recovery.epoch, EpochId(0));
  Put(1, 4, "both");
  auto view = Compile(4);
  ASSERT_TRUE(Run(*view, 1, 2).ok());
  controller_->OnDetached(WorkerId(1), incarnations_[1], "killed");
  clock_.Advance(absl::Milliseconds(30));
  control::Event opened;
  opened.mutable_epoch_opened()->set_epoch(2);
  opened.mutable_epoch_opened()->set_drain_us(4000);
  opened.mutable_epoch_opened()->set_client_us(20000);
  Send(0, opened);
  core::RecoveryStatus recovery = controller_->GetStatus().recovery;
  EXPECT_EQ(recovery.epoch, EpochId(2));
  EXPECT_EQ(recovery.drain, absl::Milliseconds(4));
  EXPECT_EQ(recovery.client, absl::Milliseconds(20));
  EXPECT_EQ(recovery.opened, absl::Milliseconds(30));
  EXPECT_EQ(recovery.launched, absl::Duration());
  EXPECT_THAT(recovery.cause, HasSubstr("slice 1 lost"));
  Attach(1);
  Put(5, 4, "anew");
  ASSERT_TRUE(Run(*view, 5, 6).ok());
  clock_.Advance(absl::Milliseconds(12));
  Confirm(0, 2, 2);
  Confirm(1, 2, 2);
  recovery = controller_->GetStatus().recovery;
  EXPECT_EQ(recovery.launched, absl::Milliseconds(42));
  EXPECT_EQ(recovery.opened, absl::Milliseconds(30));
}

TEST_F(ControllerTest, ProgramsCompileOnceAndLoadOncePerWorker) {
  auto a = Compile(4);
  auto b = Compile(4);
  EXPECT_NE(a->handle, b->handle);
  EXPECT_EQ(links_[0]->Of(control::Command::kCompile).size() +
                links_[1]->Of(control::Command::kCompile).size(),
            1);
  EXPECT_EQ(links_[0]->Of(control::Command::kLoadProgram).size(), 1);
  EXPECT_EQ(links_[1]->Of(control::Command::kBind).size(), 1);
}

TEST_F(ControllerTest, AnotherHeadFindsProgramsOnDisk) {
  auto compiles = [this] {
    return links_[0]->Of(control::Command::kCompile).size() +
           links_[1]->Of(control::Command::kCompile).size();
  };
  auto first = Compile(4, /*donate=*/true);
  EXPECT_EQ(compiles(), 1);
  EXPECT_EQ(cache_.entries.size(), 1);

  StartController();
  auto again = Compile(4, /*donate=*/true);
  EXPECT_EQ(compiles(), 0);
  EXPECT_EQ(again->info->donated_inputs, first->info->donated_inputs);
  EXPECT_EQ(again->outputs[0].shape, first->outputs[0].shape);
  // Workers also get the code, for where the compiled form does not load.
  const auto load = links_[1]->Of(control::Command::kLoadProgram).back().load_program();
  EXPECT_EQ(load.serialized(), "blob");
  EXPECT_EQ(load.code(), "program");
  EXPECT_EQ(controller_->GetStatus().counters["compiles_total"], 0);
  EXPECT_EQ(controller_->GetStatus().counters["disk_cache_hits_total"], 1);
  // Another number of devices is another program, and so is another XLA.
  Compile(2, true);
  EXPECT_EQ(compiles(), 1);
  StartController("jaxlib 2");
  Compile(4, true);
  EXPECT_EQ(compiles(), 1);
}

TEST_F(ControllerTest, WhatDiskCannotServeIsCompiled) {
  Compile(4, false, "tokens", /*compiled=*/"");  // no compiled form
  Compile(4, false, "calls xla_ffi_python_gpu_callback");
  EXPECT_TRUE(cache_.entries.empty());
  // Contents that make no sense.
  Compile(4);
  ASSERT_EQ(cache_.entries.size(), 1);
  cache_.entries.begin()->second = "\xff\xff\xff";
  StartController();
  Compile(4);
  EXPECT_EQ(controller_->GetStatus().counters["compiles_total"], 1);
}

TEST_F(ControllerTest, TheProgramWhoseUseIsLongestAgoMakesRoom) {
  auto compiles = [this] {
    return links_[0]->Of(control::Command::kCompile).size() +
           links_[1]->Of(control::Command::kCompile).size();
  };
  auto use = [this](const std::string& code) {
    auto view = Compile(4, false, code);
    ASSERT_TRUE(controller_->DestructExecutable(session_, view->handle).ok());
  };
  auto kept = Compile(4, false, "kept");
  use("0");
  use("1");
  use("2");
  use("0");
  EXPECT_EQ(compiles(), 4);
  use("3");  // makes 1 go, on all workers, but neither what is held nor what was used since
  EXPECT_EQ(links_[0]->Of(control::Command::kDropProgram).size(), 1);
  EXPECT_EQ(links_[1]->Of(control::Command::kUnbind).size(), 1);
  Put(1, 4, "abcd");
  EXPECT_TRUE(Run(*kept, 1, 2).ok());
  cache_.entries.clear();
  use("0");
  EXPECT_EQ(compiles(), 5);
  use("1");
  EXPECT_EQ(compiles(), 6);
  EXPECT_EQ(controller_->GetStatus().counters["compile_cache_dropped_total"], 2);
}

TEST_F(ControllerTest, ProgramsMakeRoomByTheirBytes) {
  auto first = Compile(4, false, std::string(600, 'a'));
  ASSERT_TRUE(controller_->DestructExecutable(session_, first->handle).ok());
  auto second = Compile(4, false, std::string(600, 'b'));
  EXPECT_TRUE(links_[0]->Of(control::Command::kDropProgram).empty());
  auto third = Compile(4, false, "c");
  EXPECT_EQ(links_[0]->Of(control::Command::kDropProgram).size(), 1);
  // What is held stays, however much it is.
  auto fourth = Compile(4, false, std::string(600, 'd'));
  Compile(4, false, "e");
  EXPECT_EQ(links_[0]->Of(control::Command::kDropProgram).size(), 1);
}

TEST_F(ControllerTest, DonationDeletesEveryAliasOfTheInput) {
  auto view = Compile(2, /*donate=*/true);
  Put(1, 2, "abcd");
  ASSERT_TRUE(controller_
                  ->FullyReplicatedShard(session_, ArrayHandle(1), ArrayHandle(9),
                                         core::CopySemantics::kReuseInput)
                  .ok());
  ASSERT_TRUE(Run(*view, 1, 2).ok());
  EXPECT_TRUE(*controller_->IsDeleted(session_, ArrayHandle(1)));
  EXPECT_TRUE(*controller_->IsDeleted(session_, ArrayHandle(9)));
  EXPECT_EQ(Run(*view, 1, 3).code(), absl::StatusCode::kInvalidArgument);
  // The mistake is bound to the result as well.
  auto read = Fetch(3);
  ASSERT_TRUE(read->done);
  EXPECT_EQ(read->value.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ControllerTest, WhatAProgramDoesNotTakeReachesNoWorker) {
  // f(u8[4] replicated, u8[4] cut in two), its first argument donated, on both workers.
  core::CompileRequest request;
  request.program = "two arguments";
  request.devices = {DeviceId(0), DeviceId(2)};
  std::shared_ptr<const core::ExecutableView> view;
  controller_->Compile(session_, request, [&](auto result) { view = *result; });
  for (int w = 0; w < 2; ++w) {
    for (const auto& c : links_[w]->Of(control::Command::kCompile)) {
      control::Event event;
      event.mutable_reply()->set_request(c.compile().request());
      control::CompileResult* result = event.mutable_reply()->mutable_compile();
      result->set_serialized("blob");
      result->set_has_parameters(true);
      for (int i = 0; i < 2; ++i) {
        control::ArrayType* type = result->add_parameters();
        type->set_dtype(static_cast<int>(model::DType::kU8));
        type->add_dims(4);
      }
      result->set_has_parameter_shardings(true);
      result->add_parameter_shardings("");
      // OTHER (3), tile_assignment_dimensions [2], tile_assignment_devices [0, 1].
      result->add_parameter_shardings(std::string("\x08\x03\x1a\x01\x02\x22\x02\x00\x01", 9));
      *result->add_outputs() = result->parameters(0);
      result->add_donated_inputs(0);
      Send(w, event);
    }
  }
  ASSERT_NE(view, nullptr);
  model::OpSharding halves;
  halves.type = model::OpSharding::Type::kOther;
  halves.tile_dims = {2};
  halves.tile_devices = {0, 1};
  const model::ShardingRef cut = *model::Sharding::Hlo(request.devices, "device", halves);
  const model::ShardingRef whole = *model::Sharding::Hlo(request.devices, "device", {});
  auto put = [&](uint64_t handle, model::DType dtype, int64_t n, const model::ShardingRef& how) {
    core::HostShards source;
    source.shape = {n};
    source.shard_indices = {0, 1};
    source.holds_whole_array = true;
    source.bytes = std::make_shared<Bytes>(std::string(n * model::HostByteWidth(dtype), 'x'));
    ASSERT_TRUE(controller_
                    ->MakeArray(session_, ArrayHandle(handle), {dtype, {n}, how, ""}, {source})
                    .ok());
  };
  put(1, model::DType::kU8, 4, whole);
  put(2, model::DType::kU8, 4, cut);
  put(3, model::DType::kS8, 4, cut);
  put(4, model::DType::kU8, 8, cut);
  put(5, model::DType::kU8, 3, cut);
  auto run = [&](std::vector<uint64_t> args) {
    core::ExecuteRequest call;
    call.executable = view->handle;
    for (uint64_t arg : args) call.args.push_back(ArrayHandle(arg));
    call.results = {ArrayHandle(9)};
    return controller_->Execute(session_, call).status();
  };
  const auto launches = [&] { return links_[0]->Of(control::Command::kLaunch).size(); };
  const struct {
    std::vector<uint64_t> args;
    const char* text;
  } mistakes[] = {
      {{1}, "takes 2 arguments, but 1 were given"},
      {{1, 2, 2}, "takes 2 arguments, but 3 were given"},
      {{1, 1}, "is uint8[4] on each device, but the program takes uint8[2]"},
      {{2, 2}, "is uint8[2] on each device, but the program takes uint8[4]"},
      {{1, 3}, "is int8[2] on each device, but the program takes uint8[2]"},
      {{1, 4}, "is uint8[4] on each device, but the program takes uint8[2]"},
      {{1, 5}, "does not divide it evenly"},
  };
  for (const auto& mistake : mistakes) {
    const absl::Status status = run(mistake.args);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << mistake.text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(mistake.text));
    EXPECT_EQ(Fetch(9)->value.status(), status);
  }
  EXPECT_EQ(launches(), 0);
  // Nothing was taken over by what was refused.
  EXPECT_TRUE(run({1, 2}).ok());
  EXPECT_EQ(launches(), 1);
  EXPECT_TRUE(*controller_->IsDeleted(session_, ArrayHandle(1)));
}

TEST_F(ControllerTest, WhatIsTakenOverIsUsedByNobodyElseInTheCall) {
  auto view = Compile(4, /*donate=*/true);
  Put(1, 4, "abcd");
  core::ExecuteRequest call;
  call.executable = view->handle;
  call.args = {ArrayHandle(1), ArrayHandle(1)};
  call.results = {ArrayHandle(2)};
  const absl::Status status = controller_->Execute(session_, call).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("use a buffer that was previously donated in the same call"));
  EXPECT_TRUE(links_[0]->Of(control::Command::kLaunch).empty());
  EXPECT_FALSE(*controller_->IsDeleted(session_, ArrayHandle(1)));
}

// What a program with ordered effects on several devices leaves behind: JAX gives the array another
// shape than its shards.
TEST_F(ControllerTest, TokensAreAssembledWhateverTheirShape) {
  const std::vector<DeviceId> devices = Devices(2);
  for (int i = 0; i < 2; ++i) {
    core::HostShards source;
    source.shard_indices = {0};
    source.bytes = std::make_shared<Bytes>("");
    ASSERT_TRUE(controller_
                    ->MakeArray(session_, ArrayHandle(1 + i),
                                {model::DType::kToken, {},
                                 model::Sharding::SingleDevice(devices[i], "device"), ""},
                                {source})
                    .ok());
  }
  model::OpSharding halves;
  halves.type = model::OpSharding::Type::kOther;
  halves.tile_dims = {2};
  halves.tile_devices = {0, 1};
  const absl::Status status = controller_->Assemble(
      session_, ArrayHandle(3),
      {model::DType::kInvalid, {0}, *model::Sharding::Hlo(devices, "device", halves), ""},
      {ArrayHandle(1), ArrayHandle(2)}, core::CopySemantics::kReuseInput);
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(ControllerTest, AnArrayIsAssembledOfWhatFitsTheDescription) {
  const std::vector<DeviceId> devices = Devices(2);
  auto put = [&](uint64_t handle, int device, model::DType dtype, int64_t n,
                 const std::string& memory = "device") {
    core::HostShards source;
    source.shape = {n};
    source.shard_indices = {0};
    source.bytes = std::make_shared<Bytes>(std::string(n, 'x'));
    const model::ShardingRef sharding = model::Sharding::SingleDevice(DeviceId(device), memory);
    ASSERT_TRUE(
        controller_->MakeArray(session_, ArrayHandle(handle), {dtype, {n}, sharding, ""}, {source})
            .ok());
  };
  put(1, 0, model::DType::kU8, 2);
  put(2, 1, model::DType::kU8, 2);
  put(3, 1, model::DType::kS8, 2);
  put(4, 1, model::DType::kU8, 3);
  put(5, 1, model::DType::kU8, 2, "pinned_host");
  model::OpSharding halves;
  halves.type = model::OpSharding::Type::kOther;
  halves.tile_dims = {2};
  halves.tile_devices = {0, 1};
  const core::ArraySpec spec{model::DType::kU8, {4},
                             *model::Sharding::Hlo(devices, "device", halves), ""};
  auto assemble = [&](uint64_t second) {
    return controller_->Assemble(session_, ArrayHandle(9), spec,
                                 {ArrayHandle(1), ArrayHandle(second)},
                                 core::CopySemantics::kReuseInput);
  };
  EXPECT_TRUE(assemble(2).ok());
  const std::pair<uint64_t, const char*> misfits[] = {
      {1, "lies on device 0"},
      {3, "elements of int8, the array of uint8"},
      {4, "has the shape [3], but a shard of [4] under this sharding has [2]"},
      {5, "in memory 'pinned_host'"},
  };
  for (const auto& [second, text] : misfits) {
    const absl::Status status = assemble(second);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  }
  // The same holds for an array that is made of another one's shards.
  ASSERT_TRUE(assemble(2).ok());
  core::ArraySpec other = spec;
  other.dtype = model::DType::kS8;
  EXPECT_THAT(std::string(controller_
                              ->RemapArrays(session_, {ArrayHandle(9)}, {other},
                                            {{0, 0, {{0, 2, 1}}, {{0, 2, 1}}}},
                                            core::CopySemantics::kReuseInput, {ArrayHandle(10)})
                              .message()),
              HasSubstr("elements of uint8, the array of int8"));
}

TEST_F(ControllerTest, AClosedSessionFreesWhatItHeld) {
  auto view = Compile(4);
  Put(1, 4, "abcd");
  for (uint64_t h = 1; h < 50; ++h) ASSERT_TRUE(Run(*view, h, h + 1).ok());
  EXPECT_EQ(Gauge("buffers"), 50);
  controller_->CloseSession(session_);
  EXPECT_EQ(Gauge("buffers"), 0);
  EXPECT_EQ(Gauge("buffer_bytes"), 0);
  const auto frees = links_[1]->Of(control::Command::kFree);
  ASSERT_EQ(frees.size(), 1);
  EXPECT_EQ(frees[0].free().buffers_size(), 50);
}

TEST_F(ControllerTest, ReadinessOfGangResultsAsksNoWorker) {
  auto view = Compile(4);
  Put(1, 4, "abcd");
  ASSERT_TRUE(Run(*view, 1, 2).ok());
  absl::Status status = absl::UnknownError("pending");
  controller_->AwaitReady(session_, {ArrayHandle(2)}, [&](absl::Status s) { status = s; });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
  Confirm(0, 1);
  Confirm(1, 1);
  EXPECT_TRUE(status.ok());
  EXPECT_TRUE(links_[0]->Of(control::Command::kAwaitReady).empty());
}

TEST_F(ControllerTest, AWorkerThatStopsAnsweringIsLost) {
  for (int i = 0; i < 3; ++i) timers_.Advance(absl::Seconds(5));
  for (uint64_t i = 1; i <= 3; ++i) {
    control::Event pong;
    pong.mutable_pong()->set_number(i);
    Send(0, pong);
  }
  timers_.Advance(absl::Seconds(5));
  const core::ClusterStatus status = controller_->GetStatus();
  EXPECT_TRUE(status.workers[0].alive);
  EXPECT_FALSE(status.workers[1].alive);
  EXPECT_THAT(status.workers[1].why, HasSubstr("heartbeats"));
  EXPECT_FALSE(links_[1]->closed.empty());
}

TEST_F(ControllerTest, ALaunchThatOneMemberNeverStartsEndsWithItsName) {
  auto view = Compile(4);
  Put(1, 4, "abcd");
  ASSERT_TRUE(Run(*view, 1, 2).ok());
  absl::Status status = absl::UnknownError("pending");
  controller_->AwaitReady(session_, {ArrayHandle(2)}, [&](absl::Status s) { status = s; });
  uint64_t beat = 0;
  // Minutes of heartbeats that both workers answer.
  auto live = [&](int minutes, uint64_t admitted_by_0, uint64_t admitted_by_1) {
    for (int i = 0; i < minutes * 12; ++i) {
      timers_.Advance(absl::Seconds(5));
      ++beat;
      for (int w = 0; w < 2; ++w) {
        control::Event pong;
        pong.mutable_pong()->set_number(beat);
        pong.mutable_pong()->set_epoch(1);
        pong.mutable_pong()->set_admitted(w == 0 ? admitted_by_0 : admitted_by_1);
        if (w == 1) {
          pong.mutable_pong()->set_waiting(1);
          pong.mutable_pong()->set_waits_for("transfer 7 from worker 0 has not come");
        }
        Send(w, pong);
      }
    }
  };
  live(30, 0, 0);  // nobody is inside: nobody is kept waiting
  live(9, 1, 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
  live(1, 1, 1);  // it starts after all: the time begins anew
  live(9, 1, 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
  live(2, 1, 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("worker 1 has not started launch 1 for 10m"));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("while worker 0 waits inside it: transfer 7 from worker 0 has not come"));
  EXPECT_EQ(links_[0]->Of(control::Command::kAbortEpoch).size(), 1u);
}

TEST_F(ControllerTest, ReshardMovesOnlyWhatMustMove) {
  // u8[4] split over all four devices -> split over the two devices of worker 0.
  model::OpSharding split;
  split.type = model::OpSharding::Type::kOther;
  split.tile_dims = {4};
  auto four = *model::Sharding::Hlo(Devices(4), "device", split);
  split.tile_dims = {2};
  auto two = *model::Sharding::Hlo(Devices(2), "device", split);
  core::HostShards source;
  source.shape = {4};
  source.holds_whole_array = true;
  source.bytes = std::make_shared<Bytes>("abcd");
  ASSERT_TRUE(controller_
                  ->MakeArray(session_, ArrayHandle(1), {model::DType::kU8, {4}, four, ""},
                              {source})
                  .ok());
  ASSERT_TRUE(controller_
                  ->ReshardArrays(session_, {ArrayHandle(1)}, {{model::DType::kU8, {4}, two, ""}},
                                  core::CopySemantics::kReuseInput, {ArrayHandle(2)})
                  .ok());
  EXPECT_TRUE(links_[0]->Of(control::Command::kSend).empty());
  EXPECT_EQ(links_[1]->Of(control::Command::kSend).size(), 2);
  const auto build = links_[0]->Of(control::Command::kBuild).back().build();
  ASSERT_EQ(build.shards_size(), 2);
  EXPECT_EQ(build.shards(0).pieces().pieces_size(), 2);
  EXPECT_EQ(build.shards(0).pieces().pieces(0).local().buffer(),
            links_[0]->Of(control::Command::kBuild).front().build().buffer());
  EXPECT_NE(build.shards(1).pieces().pieces(0).transfer(), 0);
}

TEST_F(ControllerTest, AHostProgramBelongsToItsExecutable) {
  auto compile = [&](std::vector<DeviceId> devices, int output_device) {
    core::CompileRequest request;
    request.kind = core::ProgramKind::kColocatedPython;
    request.program = "pickle";
    request.name = "f";
    request.devices = std::move(devices);
    request.output_specs = {{model::DType::kU8, {4},
                             model::Sharding::SingleDevice(DeviceId(output_device), ""), ""}};
    absl::StatusOr<std::shared_ptr<const core::ExecutableView>> found =
        absl::UnknownError("pending");
    controller_->Compile(session_, request, [&](auto result) { found = std::move(result); });
    return found;
  };
  const auto first = compile(Devices(4), 1);
  const auto second = compile(Devices(4), 1);
  ASSERT_TRUE(first.ok() && second.ok()) << first.status();
  EXPECT_TRUE(links_[0]->Of(control::Command::kCompile).empty());
  // What looks the same is not: each may have a state of its own.
  ASSERT_EQ(links_[0]->Of(control::Command::kBind).size(), 2u);
  const auto bind = links_[0]->Of(control::Command::kBind)[0].bind();
  EXPECT_NE(bind.binding(), links_[0]->Of(control::Command::kBind)[1].bind().binding());
  EXPECT_EQ(bind.session(), session_.value());
  EXPECT_EQ(bind.host_outputs(0).shards(0).device(), 1);
  // The result lies on worker 0 alone, but both run it, outside the order of gang launches.
  Put(1, 4, "abcd");
  ASSERT_TRUE(Run(**first, 1, 2).ok());
  EXPECT_EQ(links_[0]->raw.back(), links_[1]->raw.back());
  EXPECT_EQ(links_[1]->Of(control::Command::kLaunch).back().launch().seq(), 0u);
  controller_->AwaitReady(session_, {ArrayHandle(2)}, [](absl::Status) {});
  EXPECT_EQ(links_[0]->Of(control::Command::kAwaitReady).size(), 1u);
  EXPECT_TRUE(links_[1]->Of(control::Command::kAwaitReady).empty());
  // Its end is told at once, and at the latest with the session.
  ASSERT_TRUE(controller_->DestructExecutable(session_, (*first)->handle).ok());
  EXPECT_EQ(links_[1]->Of(control::Command::kUnbind).back().unbind().binding(), bind.binding());
  controller_->CloseSession(session_);
  EXPECT_EQ(links_[1]->Of(control::Command::kUnbind).size(), 2u);
  EXPECT_EQ(links_[1]->Of(control::Command::kDropProgram).size(), 2u);
}

TEST_F(ControllerTest, AHostProgramsOutputLiesWhereItRuns) {
  core::CompileRequest request;
  request.kind = core::ProgramKind::kColocatedPython;
  request.name = "f";
  request.devices = Devices(2);
  request.output_specs = {
      {model::DType::kU8, {4}, model::Sharding::SingleDevice(DeviceId(3), ""), ""}};
  absl::Status status;
  controller_->Compile(session_, request, [&](auto result) { status = result.status(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("device 3"));
}

TEST_F(ControllerTest, AnArrayOfOthersMemoryDiesWithThemAndTheyWithIt) {
  const auto assemble = [&](uint64_t first) {
    const std::vector<DeviceId> devices = Devices(2);
    for (uint64_t i = 0; i < 2; ++i) {
      core::HostShards source;
      source.shape = {4};
      source.shard_indices = {0};
      source.bytes = std::make_shared<Bytes>("abcd");
      ASSERT_TRUE(controller_
                      ->MakeArray(session_, ArrayHandle(first + i),
                                  {model::DType::kU8, {4},
                                   model::Sharding::SingleDevice(devices[i], "device"), ""},
                                  {source})
                      .ok());
    }
    ASSERT_TRUE(controller_
                    ->Assemble(session_, ArrayHandle(first + 2),
                               {model::DType::kU8, {4}, Replicated(2), ""},
                               {ArrayHandle(first), ArrayHandle(first + 1)},
                               core::CopySemantics::kReuseInput)
                    .ok());
  };
  const auto deleted = [&](uint64_t handle) {
    return *controller_->IsDeleted(session_, ArrayHandle(handle));
  };
  // Once it is an argument, the workers hold it as a buffer of its own in the same memory.
  assemble(1);
  ASSERT_TRUE(Run(*Compile(2, /*donate=*/true, "taker"), 3, 4).ok());
  EXPECT_TRUE(deleted(1) && deleted(2) && deleted(3));
  EXPECT_FALSE(deleted(4));
  assemble(11);
  ASSERT_TRUE(Run(*Compile(2, /*donate=*/false, "reader"), 13, 14).ok());
  EXPECT_FALSE(deleted(11) || deleted(12) || deleted(13));
  ASSERT_TRUE(controller_->Delete(session_, {ArrayHandle(11)}).ok());
  EXPECT_TRUE(deleted(13));
  EXPECT_FALSE(deleted(12));
}

TEST_F(ControllerTest, ABitcastMovesEveryShardToItself) {
  Put(1, 4, "abcd");
  const core::ArraySpec floats{model::DType::kF32, {1}, Replicated(4), ""};
  EXPECT_EQ(controller_
                ->BitcastArrays(session_, {ArrayHandle(1)}, {floats},
                                core::CopySemantics::kAlwaysCopy, {ArrayHandle(2)})
                .code(),
            absl::StatusCode::kInvalidArgument);
  const core::ArraySpec longer{model::DType::kF32, {2}, Replicated(4), ""};
  EXPECT_EQ(controller_
                ->BitcastArrays(session_, {ArrayHandle(1)}, {longer},
                                core::CopySemantics::kDonateInput, {ArrayHandle(2)})
                .code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(*controller_->IsDeleted(session_, ArrayHandle(1)));
  ASSERT_TRUE(controller_
                  ->BitcastArrays(session_, {ArrayHandle(1)}, {floats},
                                  core::CopySemantics::kDonateInput, {ArrayHandle(2)})
                  .ok());
  EXPECT_TRUE(*controller_->IsDeleted(session_, ArrayHandle(1)));
  const auto sends = links_[1]->Of(control::Command::kSend);
  ASSERT_EQ(sends.size(), 2u);
  EXPECT_EQ(sends[0].send().to_worker(), 1);
  const auto build = links_[1]->Of(control::Command::kBuild).back().build();
  EXPECT_EQ(build.dtype(), static_cast<int>(model::DType::kF32));
  EXPECT_EQ(build.shards(0).transfer(), sends[0].send().transfer());
  EXPECT_EQ(build.shards(0).dims(0), 1);
}

TEST_F(ControllerTest, TextIsCutAndJoinedByElements) {
  const std::vector<std::string> words = {"a", "bb", "", "dddd"};
  core::HostShards source;
  source.shape = {4};
  source.holds_whole_array = true;
  source.bytes = std::make_shared<Bytes>(wire::EncodeText(words));
  model::OpSharding op;
  op.type = model::OpSharding::Type::kOther;
  op.tile_dims = {4};
  op.tile_devices = {0, 1, 2, 3};
  const auto sharding = *model::Sharding::Hlo(Devices(4), "device", op);
  ASSERT_TRUE(controller_
                  ->MakeArray(session_, ArrayHandle(1),
                              {model::DType::kString, {4}, sharding, ""}, {source})
                  .ok());
  ASSERT_EQ(links_[0]->data.size(), 2u);
  auto read = Fetch(1);
  for (int w = 0; w < 2; ++w) {
    const auto fetch = links_[w]->Of(control::Command::kFetch).back().fetch();
    for (int k = 0; k < 2; ++k) {
      const auto shard = links_[w]->Of(control::Command::kBuild).back().build().shards(k);
      const auto& bytes = links_[w]->data.at(TransferId(shard.transfer()));
      ASSERT_TRUE(bytes.ok());
      EXPECT_EQ(*wire::ParseText(std::string(*bytes), {1}),
                std::vector<std::string>{words[shard.device()]});
      Data(w, fetch.request(), shard.device(), std::string(*bytes));
    }
    Reply(w, fetch.request());
  }
  ASSERT_TRUE(read->done);
  ASSERT_TRUE(read->value.ok()) << read->value.status();
  EXPECT_EQ(*wire::ParseText(std::string(*read->value), {4}), words);
}

TEST_F(ControllerTest, ProgramsWithCallbacksAreForgottenWithTheirLastHandle) {
  const std::string channel =
      absl::StrCat("causeway-callbacks:", std::string(callbacks::kTokenChars, 'a'), ":7;");
  const auto first = Compile(4, false, channel);
  const auto second = Compile(4, false, channel);
  const auto other = Compile(4, false, "plain");
  ASSERT_TRUE(controller_->DestructExecutable(session_, first->handle).ok());
  ASSERT_TRUE(controller_->DestructExecutable(session_, other->handle).ok());
  EXPECT_TRUE(callbacks_gone_.empty());
  EXPECT_TRUE(links_[0]->Of(control::Command::kDropProgram).empty());
  ASSERT_TRUE(controller_->DestructExecutable(session_, second->handle).ok());
  EXPECT_EQ(callbacks_gone_, std::vector<uint64_t>{7});
  EXPECT_EQ(links_[0]->Of(control::Command::kUnbind).size(), 1u);
  EXPECT_EQ(links_[1]->Of(control::Command::kDropProgram).size(), 1u);
  // A session that ends lets go of what it held.
  Compile(4, false, channel);
  controller_->CloseSession(session_);
  EXPECT_EQ(callbacks_gone_, (std::vector<uint64_t>{7, 7}));
}

}  // namespace
}  // namespace causeway::controller
