// Tests: host programs in a worker's graph, and arrays of text.
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <map>

#include "absl/strings/str_cat.h"
#include "causeway/device/fake_device.h"
#include "causeway/device/host_arrays.h"
#include "causeway/wire/text_array.h"
#include "causeway/worker/op_graph.h"

namespace causeway::worker {
namespace {

constexpr int32_t kF32 = 11, kText = 99;

device::HostBytes Floats(const std::vector<float>& values) {
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return device::HostBlock::FromString(std::move(bytes));
}

// One worker whose threads are the test: blocking work runs when it is told to.
class HostProgramTest : public ::testing::Test, public GraphHost {
 protected:
  HostProgramTest()
      : device_(device::WithHostArrays(std::make_unique<device::FakeDevice>(1, &fabric_))),
        ledger_([this](Event e) { Emit(std::move(e)); }),
        graph_(device_.get(), this, &ledger_, GraphOptions{}) {
    graph_.CloseEpochs(EpochId(1));
    worker::OpenEpoch open;
    open.epoch = EpochId(1);
    open.nodes.nodes = {1};
    EXPECT_TRUE(graph_
                    .OpenEpoch(open, {.epoch = 1, .node = 1, .worker = 0, .devices_per_host = 1})
                    .status.ok());
  }

  void Watch(std::shared_ptr<LaunchRecord> record) override { watched_.push_back(record); }
  void AwaitBytes(std::unique_ptr<device::HostCopy> copy,
                  absl::AnyInvocable<void(absl::StatusOr<device::HostShard>)> done) override {
    done(copy->Await());
  }
  void AwaitArrays(std::vector<device::ArrayRef> arrays,
                   absl::AnyInvocable<void(absl::Status)> done) override {
    done(device_->AwaitReady(arrays));
  }
  void Post(absl::AnyInvocable<void()> work) override { posted_.push_back(std::move(work)); }
  void Emit(Event event) override {
    if (auto* reply = std::get_if<Reply>(&event)) replies_[reply->request.value()] = reply->status;
    if (auto* data = std::get_if<FetchData>(&event)) {
      data_.assign(data->bytes->data(), data->bytes->size());
    }
  }
  void Push(WorkerId, TransferId, absl::StatusOr<device::HostBytes> bytes) override {
    pushed_ = std::move(bytes);
  }
  void RunBlocking(absl::AnyInvocable<void()> work) override {
    blocking_.push_back(std::move(work));
  }
  absl::Time Now() override { return absl::UnixEpoch(); }

  void Post() {
    while (!posted_.empty()) {
      auto work = std::move(posted_.front());
      posted_.pop_front();
      work();
    }
  }
  // Runs one piece of blocking work, the n-th that waits.
  void RunOne(size_t n = 0) {
    Post();
    ASSERT_LT(n, blocking_.size());
    auto work = std::move(blocking_[n]);
    blocking_.erase(blocking_.begin() + static_cast<ptrdiff_t>(n));
    work();
    work = nullptr;
    Post();
  }
  void RunAll() {
    Post();
    while (!blocking_.empty()) RunOne();
  }
  void Program(uint64_t id, const std::string& code, std::vector<int64_t> dims = {2},
               uint64_t session = 1) {
    device::ProgramSource source;
    source.code = code;
    source.kind = 2;
    source.name = "f";
    graph_.Run(LoadProgram{ProgramId(id), source});
    Bind bind{.binding = BindingId(id), .program = ProgramId(id), .devices = {0}};
    bind.host_outputs = {{kF32, "", {{0, dims}, {7, {9}}}}};  // one shard on another worker
    bind.session = SessionId(session);
    graph_.Run(std::move(bind));
  }
  void Build(uint64_t buffer, device::HostBytes bytes, std::vector<int64_t> dims = {2},
             int32_t dtype = kF32) {
    ShardBuild shard;
    shard.dims = std::move(dims);
    shard.bytes = std::move(bytes);
    graph_.Run(worker::Build{BufferId(buffer), dtype, "", {shard}});
  }
  void Launch(uint64_t binding, std::vector<uint64_t> args, uint64_t output, int64_t stream = 0,
              uint64_t request = 0) {
    worker::Launch launch{.binding = BindingId(binding), .epoch = EpochId(1)};
    for (const uint64_t a : args) launch.args.push_back(BufferId(a));
    launch.outputs = {BufferId(output)};
    launch.request = RequestId(request);
    launch.stream = stream;
    graph_.Run(std::move(launch));
    Post();
  }
  // "v0 v1", "pending", or the error's message.
  std::string Read(uint64_t buffer) {
    const RequestId request(++last_request_);
    graph_.Run(Fetch{request, BufferId(buffer), {0}});
    Post();
    if (!replies_.contains(request.value())) return "pending";
    const absl::Status& status = replies_[request.value()];
    if (!status.ok()) return std::string(status.message());
    std::vector<float> values(data_.size() / sizeof(float));
    std::memcpy(values.data(), data_.data(), data_.size());
    std::string text;
    for (const float v : values) absl::StrAppend(&text, text.empty() ? "" : " ", v);
    return text;
  }

  device::FakeFabric fabric_;
  std::unique_ptr<device::Device> device_;
  LaunchLedger ledger_;
  OpGraph graph_;
  std::deque<absl::AnyInvocable<void()>> posted_, blocking_;
  std::deque<std::shared_ptr<LaunchRecord>> watched_;
  std::map<uint64_t, absl::Status> replies_;
  std::string data_;
  absl::StatusOr<device::HostBytes> pushed_ = device::HostBytes();
  uint64_t last_request_ = 1000;
};

TEST_F(HostProgramTest, RunsAndMakesAnOrdinaryBuffer) {
  Build(10, Floats({1, 2}));
  Program(1, "fake host add 3");
  Launch(1, {10}, 11, 0, 77);
  EXPECT_EQ(Read(11), "pending");
  EXPECT_FALSE(replies_.contains(77));
  RunAll();
  EXPECT_EQ(Read(11), "4 5");
  EXPECT_TRUE(replies_.at(77).ok());
}

TEST_F(HostProgramTest, OneStreamRunsInOrderOthersSideBySide) {
  Build(10, Floats({0, 0}));
  Program(1, "fake host add 1");
  RunAll();
  Launch(1, {10}, 11, 5);
  Launch(1, {10}, 12, 5);
  Launch(1, {10}, 13, 6);
  EXPECT_EQ(blocking_.size(), 2u);  // the second of stream 5 waits for the first
  RunOne(1);
  EXPECT_EQ(Read(13), "1 1");
  EXPECT_EQ(Read(11), "pending");
  RunOne();
  EXPECT_EQ(blocking_.size(), 1u);
  RunAll();
  EXPECT_EQ(Read(12), "1 1");
}

TEST_F(HostProgramTest, WaitsForArgumentsWithoutHoldingUpOthers) {
  Program(1, "fake host add 1");
  RunAll();
  ShardBuild late;
  late.kind = ShardBuild::Kind::kTransfer;
  late.dims = {2};
  late.transfer = TransferId(9);
  graph_.Run(worker::Build{BufferId(10), kF32, "", {late}});
  Build(20, Floats({5, 5}));
  Launch(1, {10}, 11, 1);
  Launch(1, {20}, 21, 2);
  RunAll();
  EXPECT_EQ(Read(21), "6 6");
  EXPECT_EQ(Read(11), "pending");
  graph_.TransferArrived(TransferId(9), Floats({7, 8}), {});
  RunAll();
  EXPECT_EQ(Read(11), "8 9");
}

TEST_F(HostProgramTest, ErrorsAreTheOutputs) {
  Build(10, Floats({1, 2}));
  Program(1, "fake host fail ValueError: no");
  Program(2, "what is this");
  Program(3, "fake host add 1", {3});
  Launch(1, {10}, 11, 0, 77);
  Launch(2, {10}, 12);
  Launch(3, {10}, 13);
  Launch(3, {99}, 14);
  Launch(3, {11}, 15);
  RunAll();
  EXPECT_EQ(Read(11), "ValueError: no");
  EXPECT_EQ(replies_.at(77).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Read(12), "no fake host program: what is this");
  EXPECT_EQ(Read(13),
            "result 0 of f: its shard on device 0 has shape [2] where its specification has [3]");
  EXPECT_EQ(Read(14).substr(0, 19), "buffer 99 is not on");
  EXPECT_EQ(Read(15), "ValueError: no");
}

TEST_F(HostProgramTest, WhatASessionDropsIsGoneForWhatItRunsNext) {
  Build(10, Floats({1, 2}));
  Program(1, "fake host add 1");
  Program(2, "fake host add 2");
  Program(3, "fake host add 3", {2}, /*session=*/2);
  RunAll();
  graph_.Run(Unbind{BindingId(1)});
  Launch(2, {10}, 11);
  Launch(3, {10}, 12);
  EXPECT_EQ(blocking_.size(), 2u);  // the end of program 1, and the other session's launch
  RunOne(1);
  EXPECT_EQ(Read(12), "4 5");
  EXPECT_EQ(Read(11), "pending");
  RunAll();
  EXPECT_EQ(Read(11), "3 4");
}

TEST_F(HostProgramTest, AProgramEndsAfterItsLaunches) {
  Build(10, Floats({1, 2}));
  Program(1, "fake host add 1");
  RunAll();
  Launch(1, {10}, 11);
  graph_.Run(Unbind{BindingId(1)});
  EXPECT_EQ(blocking_.size(), 1u);
  RunAll();
  EXPECT_EQ(Read(11), "2 3");
}

TEST_F(HostProgramTest, AProgramEndsAfterWhatItsSessionRanBeforeItsEnd) {
  Build(10, Floats({1, 2}));
  Program(1, "fake host add 1");
  Program(2, "fake host add 2");
  RunAll();
  Launch(2, {10}, 11);
  graph_.Run(Unbind{BindingId(1)});
  EXPECT_EQ(blocking_.size(), 1u) << "the launch, and not yet the end of program 1";
  RunOne(0);
  EXPECT_EQ(Read(11), "3 4");
  EXPECT_EQ(blocking_.size(), 1u) << "the end of program 1";
  RunAll();
  Launch(2, {10}, 12);
  RunAll();
  EXPECT_EQ(Read(12), "3 4");
}

TEST_F(HostProgramTest, AnotherLifeHearsNothingOfIt) {
  Build(10, Floats({1, 2}));
  Program(1, "fake host add 1");
  RunAll();
  Launch(1, {10}, 11, 0, 77);
  graph_.Reset(0);
  RunAll();
  EXPECT_FALSE(replies_.contains(77));
}

TEST_F(HostProgramTest, AnotherLifeKeepsNothingThatWaitsForIt) {
  Build(10, Floats({1, 2}));
  Program(1, "fake host add 1");
  RunAll();
  Launch(1, {10}, 11);
  device::HostBytes half = Floats({3, 4});
  const std::weak_ptr<const device::HostBlock> arrived = half;
  ShardBuild shard;
  shard.kind = ShardBuild::Kind::kPieces;
  shard.dims = {4};
  shard.pieces.resize(2);
  shard.pieces[0].transfer = TransferId(77);
  shard.pieces[1].buffer = BufferId(11);
  for (int64_t p = 0; p < 2; ++p) {
    shard.pieces[p].start = {2 * p};
    shard.pieces[p].dims = {2};
    shard.pieces[p].source_start = {0};
  }
  graph_.Run(worker::Build{BufferId(12), kF32, "", {shard}});
  graph_.TransferArrived(TransferId(77), std::move(half), {});
  EXPECT_FALSE(arrived.expired());
  graph_.Reset(0);
  Build(13, Floats({1, 2}));  // the next life's first command
  RunAll();
  EXPECT_TRUE(arrived.expired());
}

TEST_F(HostProgramTest, TextIsKeptSentCutAndJoined) {
  const std::vector<std::string> words = {"a", "bb", "", "dddd"};
  Build(10, device::HostBlock::FromString(wire::EncodeText(words)), {4}, kText);
  EXPECT_EQ(graph_.stats().buffer_bytes, static_cast<int64_t>(wire::EncodeText(words).size()));
  graph_.Run(Send{TransferId(1), BufferId(10), 0, WorkerId(1), false, {1}, {2}});
  Post();
  ASSERT_TRUE(pushed_.ok());
  EXPECT_EQ(*wire::ParseText({(*pushed_)->data(), (*pushed_)->size()}, {2}),
            (std::vector<std::string>{"bb", ""}));

  ShardBuild shard;
  shard.kind = ShardBuild::Kind::kPieces;
  shard.dims = {3};
  Piece local{.start = {0}, .dims = {1}, .transfer = {}, .buffer = BufferId(10), .device = 0,
              .source_start = {3}};
  Piece remote{.start = {1}, .dims = {2}, .transfer = TransferId(8), .buffer = {}, .device = 0,
               .source_start = {}};
  shard.pieces = {local, remote};
  graph_.Run(worker::Build{BufferId(11), kText, "", {shard}});
  graph_.TransferArrived(TransferId(8), *pushed_, {});
  Post();
  Read(11);
  EXPECT_EQ(*wire::ParseText(data_, {3}), (std::vector<std::string>{"dddd", "bb", ""}));

  // Compiled programs do not take it.
  device::ProgramSource source;
  source.serialized = "fake add_one; inputs 1; addc 0 1; out f32[2] 1";
  graph_.Run(LoadProgram{ProgramId(4), source});
  graph_.Run(Bind{.binding = BindingId(4), .program = ProgramId(4), .devices = {0},
                  .output_memory_kinds = {}, .output_dtypes = {kF32}});
  Launch(4, {10}, 40);
  EXPECT_EQ(Read(40).substr(0, 30), "argument 0 is an array of text");
}

}  // namespace
}  // namespace causeway::worker
