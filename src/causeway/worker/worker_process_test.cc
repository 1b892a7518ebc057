// Tests: real worker processes with jaxlib, driven by a head that sends commands by hand.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>

#include "absl/strings/str_cat.h"
#include "causeway/base/random.h"
#include "causeway/base/timers.h"
#include "causeway/coordination/coordination_service.h"
#include "causeway/worker/testing/command_text.h"
#include "causeway/worker/testing/fake_head.h"

extern char** environ;

namespace causeway::worker::testing {
namespace {

std::string Python() {
  const char* chosen = std::getenv("CAUSEWAY_PYTHON");
  return chosen != nullptr ? chosen : CAUSEWAY_TEST_PYTHON;
}

pid_t Spawn(const std::vector<std::string>& arguments, const std::vector<std::string>& extra) {
  std::vector<char*> argv;
  for (const auto& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  std::vector<char*> env;
  for (char** e = environ; *e != nullptr; ++e) env.push_back(*e);
  for (const auto& e : extra) env.push_back(const_cast<char*>(e.c_str()));
  env.push_back(nullptr);
  pid_t pid = -1;
  if (::posix_spawnp(&pid, argv[0], nullptr, nullptr, argv.data(), env.data()) != 0) return -1;
  return pid;
}

int WaitExit(pid_t pid) {
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

bool HasJaxlib() {
  static const bool has = WaitExit(Spawn({Python(), "-c", "import jaxlib, jax"}, {})) == 0;
  return has;
}

// StableHLO: every element plus one, each device its own shard of f32[2n].
std::string AddOne(int n) {
  return absl::StrCat(
      "module @add_one attributes {mhlo.num_partitions = ", n,
      " : i32, mhlo.num_replicas = 1 : i32} {\n"
      " func.func public @main(%a: tensor<", 2 * n, "xf32> {mhlo.sharding = \"{devices=[", n,
      "]<=[", n, "]}\"}) -> (tensor<", 2 * n, "xf32> {mhlo.sharding = \"{devices=[", n, "]<=[", n,
      "]}\"}) {\n  %c = stablehlo.constant dense<1.0> : tensor<", 2 * n,
      "xf32>\n  %0 = stablehlo.add %a, %c : tensor<", 2 * n, "xf32>\n  return %0 : tensor<", 2 * n,
      "xf32>\n }\n}");
}

// StableHLO: the sum of f32[2n] over all devices, replicated.
std::string SumAll(int n) {
  return absl::StrCat(
      "module @sum_all attributes {mhlo.num_partitions = ", n,
      " : i32, mhlo.num_replicas = 1 : i32} {\n"
      " func.func public @main(%a: tensor<", 2 * n, "xf32> {mhlo.sharding = \"{devices=[", n,
      "]<=[", n, "]}\"}) -> (tensor<f32> {mhlo.sharding = \"{replicated}\"}) {\n"
      "  %z = stablehlo.constant dense<0.0> : tensor<f32>\n"
      "  %0 = stablehlo.reduce(%a init: %z) applies stablehlo.add across dimensions = [0] : "
      "(tensor<", 2 * n, "xf32>, tensor<f32>) -> tensor<f32>\n  return %0 : tensor<f32>\n }\n}");
}

// CompileOptionsProto{executable_build_options{replicas 1, partitions n, spmd}}, on the wire.
std::string Options(int n) {
  return std::string("\x1a\x06\x20\x01\x28", 5) + static_cast<char>(n) + std::string("\x30\x01", 2);
}

class WorkerProcessTest : public ::testing::Test {
 protected:
  static constexpr int kDevices = 2;

  void Start(int workers, std::vector<std::string> faults_of_0 = {}) {
    workers_ = workers;
    shape_.shape = model::ClusterShape{};
    shape_.shape.slices = workers;
    shape_.shape.hosts_per_slice = 1;
    shape_.shape.devices_per_host = kDevices;
    ASSERT_TRUE(coordination_.PublishTopology(shape_).ok());
    ids_ = std::make_unique<coordination::NodeIds>(shape_);
    head_ = std::make_unique<FakeHead>(coordination_.service());
    for (int w = 0; w < workers; ++w) {
      std::vector<std::string> env = {absl::StrCat("PYTHONPATH=", CAUSEWAY_TEST_PYTHONPATH)};
      if (w == 0) env.insert(env.end(), faults_of_0.begin(), faults_of_0.end());
      pids_.push_back(Spawn({Python(), "-m", "causeway.worker", "--head", head_->address(),
                             "--worker", absl::StrCat(w), "--devices", absl::StrCat(kDevices)},
                            env));
    }
    for (int w = 0; w < workers; ++w) {
      auto hello = head_->WaitAttached(w);
      ASSERT_TRUE(hello.ok()) << hello.status();
      addresses_.push_back(hello->data_address());
      control::Command command;
      auto* welcome = command.mutable_welcome();
      welcome->set_worker(w);
      welcome->set_incarnation(static_cast<uint64_t>(w) + 1);
      welcome->set_devices_per_host(kDevices);
      welcome->set_num_workers(workers);
      welcome->set_coordinator(head_->beside_address());
      welcome->set_num_nodes(shape_.num_nodes());
      welcome->set_platform("cpu");
      welcome->set_max_inflight_launches(4);
      head_->Send(w, command);
    }
    OpenEpoch(1);
  }

  void OpenEpoch(uint64_t epoch) {
    control::NodeMap map;
    for (int w = 0; w < workers_; ++w) {
      const bool alive = pids_[w] > 0;
      const int node = alive ? *ids_->New(WorkerId(w)) : 0;
      if (alive) coordination_.Begin(node);
      map.add_node(node);
      map.add_data_address(alive ? addresses_[w] : "");
    }
    for (int w = 0; w < workers_; ++w) {
      if (pids_[w] <= 0) continue;
      control::Command command;
      auto* open = command.mutable_open_epoch();
      open->set_epoch(epoch);
      *open->mutable_nodes() = map;
      open->set_drain_ms(10000);
      head_->Send(w, command);
    }
    for (int w = 0; w < workers_; ++w) {
      if (pids_[w] <= 0) continue;
      auto opened = head_->WaitEvent(
          w, [](const control::Event& e) { return e.has_epoch_opened(); });
      ASSERT_TRUE(opened.ok()) << opened.status();
      ASSERT_EQ(opened->epoch_opened().status().code(), 0)
          << opened->epoch_opened().status().message();
      last_opened_ = opened->epoch_opened();
    }
  }

  // Compiles on worker 0 and loads on all.
  control::CompileResult Program(uint64_t id, const std::string& code, int devices) {
    control::Command command;
    command.mutable_compile()->set_request(1000 + id);
    command.mutable_compile()->set_program(id);
    command.mutable_compile()->set_code(code);
    command.mutable_compile()->set_options(Options(devices));
    command.mutable_compile()->set_num_devices(devices);
    head_->Send(0, command);
    auto answer = head_->WaitReply(0, 1000 + id);
    EXPECT_TRUE(answer.ok()) << answer.status();
    if (!answer.ok()) return {};
    EXPECT_EQ(answer->reply.status().code(), 0) << answer->reply.status().message();
    control::Command load;
    load.mutable_load_program()->set_program(id);
    load.mutable_load_program()->set_serialized(answer->reply.compile().serialized());
    load.mutable_load_program()->set_code(code);
    load.mutable_load_program()->set_options(Options(devices));
    load.mutable_load_program()->set_num_devices(devices);
    load.mutable_load_program()->set_num_outputs(1);
    SendAll(load);
    return answer->reply.compile();
  }

  void SendAll(const control::Command& command) {
    for (int w = 0; w < workers_; ++w) {
      if (pids_[w] > 0) head_->Send(w, command);
    }
  }

  std::string Fetch(int worker, uint64_t buffer, int device) {
    const uint64_t request = ++request_;
    head_->Send(worker, FetchOf(request, buffer, {device}));
    auto answer = head_->WaitReply(worker, request);
    if (!answer.ok()) return answer.status().ToString();
    if (answer->reply.status().code() != 0) {
      return "error: " + answer->reply.status().message();
    }
    return answer->data[device];
  }

  void SetUp() override {
    if (!HasJaxlib()) GTEST_SKIP() << Python() << " has no jaxlib; set CAUSEWAY_PYTHON";
  }
  void TearDown() override {
    if (head_ != nullptr) {
      control::Command command;
      command.mutable_shutdown()->set_reason("test over");
      SendAll(command);
      for (const pid_t pid : pids_) {
        if (pid > 0) {
          EXPECT_EQ(WaitExit(pid), 0);
        }
      }
      coordination_.Shutdown();
    }
  }

  RealTimers timers_;
  FakeRandom random_{1};
  coordination::CoordinationService coordination_{timers_, random_};
  coordination::TopologyOptions shape_;
  std::unique_ptr<coordination::NodeIds> ids_;
  std::unique_ptr<FakeHead> head_;
  std::vector<pid_t> pids_;
  std::vector<std::string> addresses_;
  int workers_ = 0;
  uint64_t request_ = 0;
  control::EpochOpened last_opened_;
};

TEST_F(WorkerProcessTest, ComputesOnItsDevices) {
  Start(1);
  const control::CompileResult compiled = Program(1, AddOne(2), 2);
  EXPECT_EQ(compiled.name(), "add_one");
  ASSERT_EQ(compiled.outputs_size(), 1);
  EXPECT_EQ(compiled.outputs(0).dtype(), 11);
  EXPECT_EQ(compiled.outputs(0).dims(0), 4);
  EXPECT_EQ(compiled.output_shardings_size(), 1);
  EXPECT_EQ(compiled.donated_inputs_size(), 0);
  Program(2, SumAll(2), 2);
  head_->Send(0, BuildFloats(10, {0, 1}, {{0, {1, 2}}, {1, {3, 4}}}));
  head_->Send(0, BindOf(5, 1, {0, 1}, 1));
  head_->Send(0, BindOf(6, 2, {1, 0}, 1));  // another device order than the buffer's
  head_->Send(0, LaunchOf(5, 1, 0, {10}, {11}));
  head_->Send(0, LaunchOf(6, 1, 0, {11}, {12}));
  EXPECT_EQ(ToFloats(Fetch(0, 11, 0)), (std::vector<float>{2, 3}));
  EXPECT_EQ(ToFloats(Fetch(0, 11, 1)), (std::vector<float>{4, 5}));
  EXPECT_EQ(ToFloats(Fetch(0, 12, 0)), (std::vector<float>{14}));
  head_->Send(0, AwaitOf(900, {10, 11, 12}));
  EXPECT_EQ(head_->WaitReply(0, 900)->reply.status().code(), 0);
}

TEST_F(WorkerProcessTest, ReducesAcrossProcesses) {
  Start(2);
  Program(1, SumAll(4), 4);
  head_->Send(0, BuildFloats(10, {0, 1, 2, 3}, {{0, {1, 2}}, {1, {3, 4}}}));
  head_->Send(1, BuildFloats(10, {0, 1, 2, 3}, {{2, {5, 6}}, {3, {7, 8}}}));
  SendAll(BindOf(5, 1, {0, 1, 2, 3}, 1));
  for (uint64_t seq = 1; seq <= 20; ++seq) SendAll(LaunchOf(5, 1, seq, {10}, {100 + seq}));
  EXPECT_EQ(ToFloats(Fetch(0, 120, 1)), (std::vector<float>{36}));
  EXPECT_EQ(ToFloats(Fetch(1, 120, 3)), (std::vector<float>{36}));
  for (int w = 0; w < 2; ++w) {
    auto done = head_->WaitEvent(w, [](const control::Event& e) {
      return e.has_launch_done() && e.launch_done().seq() == 20;
    });
    EXPECT_TRUE(done.ok()) << done.status();
  }
}

// StableHLO: x + 1 in the memory of x.
constexpr char kDonating[] = R"(
module @donating {
 func.func public @main(%a: tensor<2xf32> {tf.aliasing_output = 0 : i32}) -> tensor<2xf32> {
  %c = stablehlo.constant dense<1.0> : tensor<2xf32>
  %0 = stablehlo.add %a, %c : tensor<2xf32>
  return %0 : tensor<2xf32>
 }
})";

TEST_F(WorkerProcessTest, DonatesProtectsAndReadsBeforeDonation) {
  Start(1);
  const control::CompileResult compiled = Program(1, kDonating, 1);
  ASSERT_EQ(compiled.donated_inputs_size(), 1);
  EXPECT_EQ(compiled.donated_inputs(0), 0);
  head_->Send(0, BindOf(1, 1, {1}, 1));
  head_->Send(0, BuildFloats(9, {1}, {{1, {1, 2}}}));
  // Through one launch, so that the memory is the device's own.
  control::Command keep = LaunchOf(1, 1, 0, {9}, {10});
  keep.mutable_launch()->add_protect(0);
  head_->Send(0, keep);
  head_->Send(0, FetchOf(801, 10, {1}));
  head_->Send(0, LaunchOf(1, 1, 0, {10}, {11}));  // takes 10 while the fetch is on its way
  EXPECT_EQ(ToFloats(head_->WaitReply(0, 801)->data[1]), (std::vector<float>{2, 3}));
  EXPECT_EQ(ToFloats(Fetch(0, 11, 1)), (std::vector<float>{3, 4}));
  EXPECT_EQ(ToFloats(Fetch(0, 9, 1)), (std::vector<float>{1, 2}));
  EXPECT_EQ(Fetch(0, 10, 1).substr(0, 5), "error");
}

TEST_F(WorkerProcessTest, TakesStridesOddTypesAndMemories) {
  Start(1);
  // A transposed 2x3 float32: element (i, j) at 4 * (i + 2 j).
  control::Command build = BuildFloats(10, {0}, {{0, {1, 2, 3, 4, 5, 6}}});
  auto* shard = build.mutable_build()->mutable_shards(0);
  shard->clear_dims();
  shard->add_dims(2);
  shard->add_dims(3);
  shard->mutable_inline_bytes()->set_has_strides(true);
  shard->mutable_inline_bytes()->add_byte_strides(4);
  shard->mutable_inline_bytes()->add_byte_strides(8);
  head_->Send(0, build);
  EXPECT_EQ(ToFloats(Fetch(0, 10, 0)), (std::vector<float>{1, 3, 5, 2, 4, 6}));
  // int4, one byte an element; bfloat16; an empty array; another memory.
  for (const auto& [dtype, bytes, kind] :
       std::vector<std::tuple<int, std::string, std::string>>{{21, "\x01\x02\x07", ""},
                                                              {16, "\x80\x3f\x00\x40", ""},
                                                              {1, std::string("\0\1", 2), ""},
                                                              {11, "", ""},
                                                              {8, "abcdefgh", "pinned_host"}}) {
    const int width = dtype == 16 ? 2 : dtype == 8 || dtype == 11 ? 4 : 1;
    control::Command command;
    auto* b = command.mutable_build();
    b->set_buffer(20);
    b->set_dtype(dtype);
    b->set_memory_kind(kind);
    b->add_devices(0);
    auto* s = b->add_shards();
    s->add_dims(static_cast<int64_t>(bytes.size()) / width);
    s->mutable_inline_bytes()->set_data(bytes);
    head_->Send(0, command);
    EXPECT_EQ(Fetch(0, 20, 0), bytes) << "dtype " << dtype;
  }
}

TEST_F(WorkerProcessTest, RefusesClientPointers) {
  Start(1);
  control::Command command;
  command.mutable_compile()->set_request(7);
  command.mutable_compile()->set_code(
      "module @m { func.func public @main(%a: tensor<2xf32>) -> tensor<2xf32> {\n"
      " %0 = stablehlo.custom_call @InspectSharding(%a) {has_side_effect = true} : "
      "(tensor<2xf32>) -> tensor<2xf32>\n return %a : tensor<2xf32> } }");
  command.mutable_compile()->set_options(Options(1));
  command.mutable_compile()->set_num_devices(1);
  head_->Send(0, command);
  auto answer = head_->WaitReply(0, 7);
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->reply.status().code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
  EXPECT_NE(answer->reply.status().message().find("InspectSharding"), std::string::npos);
}

TEST_F(WorkerProcessTest, SendsBetweenWorkersAndTakesUploads) {
  Start(2);
  std::vector<float> big(700000);  // several chunks
  for (size_t i = 0; i < big.size(); ++i) big[i] = static_cast<float>(i);
  head_->Send(0, BuildFloats(10, {0}, {{0, big}}));
  control::Command build;
  auto* b = build.mutable_build();
  b->set_buffer(11);
  b->set_dtype(11);
  b->add_devices(2);
  auto* shard = b->add_shards();
  shard->set_device(2);
  shard->add_dims(700000);
  shard->set_transfer((uint64_t{1} << 48) + 5);
  head_->Send(1, build);
  control::Command send;
  send.mutable_send()->set_transfer((uint64_t{1} << 48) + 5);
  send.mutable_send()->set_buffer(10);
  send.mutable_send()->set_device(0);
  send.mutable_send()->set_to_worker(1);
  send.mutable_send()->set_whole(true);
  head_->Send(0, send);
  EXPECT_EQ(Fetch(1, 11, 2), Floats(big));
  // An upload over the bulk stream, in two chunks.
  ASSERT_TRUE(head_->WaitBulk(1));
  shard->set_transfer(6);
  shard->clear_dims();
  shard->add_dims(4);
  b->set_buffer(12);
  head_->Send(1, build);
  for (int half = 0; half < 2; ++half) {
    control::Command data;
    data.mutable_data()->set_transfer(6);
    data.mutable_data()->set_offset(8 * half);
    data.mutable_data()->set_total(16);
    data.mutable_data()->set_bytes(half == 0 ? Floats({1, 2}) : Floats({3, 4}));
    head_->SendBulk(1, data);
  }
  EXPECT_EQ(ToFloats(Fetch(1, 12, 2)), (std::vector<float>{1, 2, 3, 4}));
}

TEST_F(WorkerProcessTest, SurvivesAPeersDeathWithItsBuffers) {
  Start(3);
  Program(1, SumAll(6), 6);
  Program(2, SumAll(4), 4);
  for (int w = 0; w < 3; ++w) {
    head_->Send(w, BuildFloats(10, {0, 1, 2, 3, 4, 5},
                               {{2 * w, {1, 2}}, {2 * w + 1, {3, 4}}}));
    head_->Send(w, BuildFloats(20, {0, 1, 2, 3}, {{2 * w, {1, 2}}, {2 * w + 1, {3, 4}}}));
  }
  SendAll(BindOf(1, 1, {0, 1, 2, 3, 4, 5}, 1));
  SendAll(BindOf(2, 2, {0, 1, 2, 3}, 1));
  SendAll(LaunchOf(1, 1, 1, {10}, {11}));
  EXPECT_EQ(ToFloats(Fetch(0, 11, 0)), (std::vector<float>{30}));
  EXPECT_EQ(ToFloats(Fetch(1, 11, 2)), (std::vector<float>{30}));
  // Two survivors enter a collective that the third never joins.
  for (int w = 0; w < 2; ++w) head_->Send(w, LaunchOf(1, 1, 2, {10}, {12}));
  ::kill(pids_[2], SIGKILL);
  WaitExit(pids_[2]);
  pids_[2] = -1;
  for (uint64_t epoch = 2; epoch < 6; ++epoch) {
    control::Command abort;
    abort.mutable_abort_epoch()->set_epoch(epoch - 1);
    abort.mutable_abort_epoch()->mutable_cause()->set_code(
        static_cast<int>(absl::StatusCode::kDataLoss));
    abort.mutable_abort_epoch()->mutable_cause()->set_message("worker 2 is lost");
    SendAll(abort);
    coordination_.EndEpoch(absl::DataLossError("worker 2 is lost"));
    OpenEpoch(epoch);
    EXPECT_LT(last_opened_.drain_us(), 5000000u);
    EXPECT_GE(last_opened_.adopted_buffers(), 3);
    if (epoch == 2) {
      EXPECT_EQ(Fetch(0, 12, 0).substr(0, 5), "error");
    }
    SendAll(LaunchOf(2, epoch, 1, {20}, {20 + epoch}));
    EXPECT_EQ(ToFloats(Fetch(0, 20 + epoch, 0)), (std::vector<float>{20}));
    EXPECT_EQ(ToFloats(Fetch(1, 20 + epoch, 2)), (std::vector<float>{20}));
    EXPECT_EQ(ToFloats(Fetch(1, 11, 2)), (std::vector<float>{30}));  // from the first epoch
    SendAll(LaunchOf(1, epoch, 2, {10}, {40 + epoch}));
    EXPECT_NE(Fetch(0, 40 + epoch, 0).find("worker 2"), std::string::npos);
  }
  control::Command ping;
  ping.mutable_ping()->set_number(1);
  head_->Send(0, ping);
  head_->Send(0, ping);
  auto pong = head_->WaitEvent(0, [](const control::Event& e) { return e.has_pong(); });
  ASSERT_TRUE(pong.ok());
  RecordProperty("open_files", pong->pong().open_files());
  RecordProperty("threads", pong->pong().threads());
  std::printf("after 5 epochs: %d files, %d threads, %lld MB\n", pong->pong().open_files(),
              pong->pong().threads(),
              static_cast<long long>(pong->pong().resident_bytes() >> 20));
}

TEST_F(WorkerProcessTest, OldEpochsLeaveNothingBehind) {
  Start(1);
  Program(1, SumAll(2), 2);
  head_->Send(0, BuildFloats(10, {0, 1}, {{0, {1, 2}}, {1, {3, 4}}}));
  head_->Send(0, BindOf(1, 1, {0, 1}, 1));
  auto ask = [this](uint64_t number) -> control::Pong {
    control::Command ping;
    ping.mutable_ping()->set_number(number);
    head_->Send(0, ping);
    auto pong = head_->WaitEvent(0, [number](const control::Event& e) {
      return e.has_pong() && e.pong().number() == number;
    });
    EXPECT_TRUE(pong.ok());
    return pong.ok() ? pong->pong() : control::Pong();
  };
  control::Pong early, late;
  for (uint64_t epoch = 2; epoch <= 16; ++epoch) {
    OpenEpoch(epoch);
    head_->Send(0, LaunchOf(1, epoch, epoch, {10}, {11}));
    EXPECT_EQ(ToFloats(Fetch(0, 11, 0)), (std::vector<float>{10}));
    control::Command free;
    free.mutable_free()->add_buffers(11);
    head_->Send(0, free);
    if (epoch == 6) early = ask(epoch);
  }
  // They are freed a second or two later, when nothing is to be done.
  const absl::Time bound = absl::Now() + absl::Seconds(30);
  for (uint64_t number = 100; absl::Now() < bound; ++number) {
    late = ask(number);
    if (late.threads() <= early.threads() + 10) break;
  }
  EXPECT_LE(late.threads(), early.threads() + 10) << "ten epochs' clients still run";
  EXPECT_LE(late.open_files(), early.open_files() + 10);
}

TEST(WorkerStartTest, SaysWhyItCannotStart) {
  if (!HasJaxlib()) GTEST_SKIP();
  EXPECT_EQ(WaitExit(Spawn({Python(), "-m", "causeway.worker", "--head", "127.0.0.1:1",
                            "--worker", "0", "--connect-seconds", "0.1"},
                           {absl::StrCat("PYTHONPATH=", CAUSEWAY_TEST_PYTHONPATH)})),
            1);
}

}  // namespace
}  // namespace causeway::worker::testing
