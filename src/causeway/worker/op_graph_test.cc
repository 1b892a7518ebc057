// Tests: order, parking, poisoning and the fence of a worker's graph, over fake devices.
#include "causeway/worker/op_graph.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>

#include "absl/strings/str_cat.h"
#include "causeway/device/fake_device.h"

namespace causeway::worker {
namespace {

constexpr char kAddOne[] = "fake add_one; inputs 1; addc 0 1; out f32[2] 1";
constexpr char kAddOneDonating[] = "fake add_one; inputs 1; addc 0 1; out f32[2] 1; donate 0";
// Keeps the sum over all devices apart from its own input: x -> psum(x) * 10.
constexpr char kSum[] = "fake sum; inputs 1; psum 0; mulc 1 10; out f32[2] 2";
constexpr char kFail[] = "fake bad; inputs 1; fail RESOURCE_EXHAUSTED no room; out f32[2] 0";

constexpr char kFailAtEnd[] =
    "fake late; inputs 1; failend INVALID_ARGUMENT a callback; out f32[2] 0";
constexpr char kGoodAtEnd[] = "fake late; inputs 1; failend OK well; out f32[2] 0";
constexpr char kSumFailAtEnd[] =
    "fake sum; inputs 1; psum 0; failend INVALID_ARGUMENT a callback; out f32[2] 1";

// One emulated worker without threads: completions and copies are collected by hand.
class TestWorker final : public GraphHost {
 public:
  // Without `rendezvous`, since nobody plays the head here.
  TestWorker(int worker, device::FakeFabric* fabric, GraphOptions options = {},
             bool rendezvous = false, device::FakeDeviceHooks hooks = {})
      : worker_(worker),
        device_(1, fabric, std::move(hooks)),
        ledger_([this](Event e) { Emit(std::move(e)); }),
        graph_(&device_, this, &ledger_, With(options, worker, rendezvous)) {}

  static GraphOptions With(GraphOptions options, int worker, bool rendezvous) {
    options.worker = worker;
    options.devices_per_host = 1;
    options.rendezvous = rendezvous;
    return options;
  }

  void Watch(std::shared_ptr<LaunchRecord> record) override { watched.push_back(record); }
  void AwaitBytes(std::unique_ptr<device::HostCopy> copy,
                  absl::AnyInvocable<void(absl::StatusOr<device::HostShard>)> done) override {
    copies.push_back({std::move(copy), std::move(done)});
  }
  void AwaitArrays(std::vector<device::ArrayRef> arrays,
                   absl::AnyInvocable<void(absl::Status)> done) override {
    done(device_.AwaitReady(arrays));
  }
  void Post(absl::AnyInvocable<void()> work) override { posted.push_back(std::move(work)); }
  void Emit(Event event) override { events.push_back(std::move(event)); }
  void Moved(const char*, const char*, int64_t bytes, absl::Duration) override { moved += bytes; }
  int64_t moved = 0;
  void Push(WorkerId to, TransferId transfer, absl::StatusOr<device::HostBytes> bytes) override {
    pushed[transfer] = std::move(bytes);
  }
  void RunBlocking(absl::AnyInvocable<void()> work) override { work(); }
  absl::Time Now() override { return now; }

  // Lets everything that can end do so.
  void Settle() {
    bool progress = true;
    while (progress) {
      progress = false;
      while (!watched.empty() && (watched.front()->completion == nullptr ||
                                  device::FakeCompletionIsReady(*watched.front()->completion))) {
        auto record = std::move(watched.front());
        watched.pop_front();
        const absl::Status status =
            record->completion == nullptr ? absl::OkStatus() : record->completion->Await();
        if (record->seq != LaunchSeq(0)) ledger_.Complete(record->epoch, record->seq, status);
        graph_.LaunchFinished(record, status);
        progress = true;
      }
      while (!posted.empty()) {
        auto work = std::move(posted.front());
        posted.pop_front();
        work();
        progress = true;
      }
    }
  }
  // After Settle: copies of values that exist.
  void FinishCopies() {
    while (!copies.empty()) {
      auto [copy, done] = std::move(copies.front());
      copies.pop_front();
      done(copy->Await());
      Settle();
    }
  }

  void OpenEpoch(uint64_t epoch, const std::vector<int32_t>& nodes) {
    graph_.CloseEpochs(EpochId(epoch));
    worker::OpenEpoch open;
    open.epoch = EpochId(epoch);
    open.nodes.nodes = nodes;
    const auto opened = graph_.OpenEpoch(
        open, {.epoch = epoch, .node = nodes[worker_], .worker = worker_, .devices_per_host = 1});
    ASSERT_TRUE(opened.status.ok()) << opened.status;
  }
  void Program(uint64_t id, const std::string& text, const std::vector<int32_t>& devices) {
    device::ProgramSource source;
    source.serialized = text;
    graph_.Run(LoadProgram{ProgramId(id), source});
    graph_.Run(Bind{BindingId(id), ProgramId(id), devices, {}, {11}});
  }
  void Build(uint64_t buffer, std::vector<float> values) {
    graph_.Run(worker::Build{BufferId(buffer), 11, "", {Inline(std::move(values))}});
  }
  ShardBuild Inline(std::vector<float> values) {
    ShardBuild shard;
    shard.device = worker_;
    shard.dims = {static_cast<int64_t>(values.size())};
    shard.bytes = Bytes(values);
    return shard;
  }
  void BuildFromTransfer(uint64_t buffer, uint64_t transfer) {
    ShardBuild shard;
    shard.kind = ShardBuild::Kind::kTransfer;
    shard.device = worker_;
    shard.dims = {2};
    shard.transfer = TransferId(transfer);
    graph_.Run(worker::Build{BufferId(buffer), 11, "", {shard}});
  }
  static device::HostBytes Bytes(const std::vector<float>& values) {
    std::string text(values.size() * sizeof(float), '\0');
    std::memcpy(text.data(), values.data(), text.size());
    return device::HostBlock::FromString(std::move(text));
  }
  void Launch(uint64_t binding, uint64_t seq, std::vector<uint64_t> args, uint64_t output,
              uint64_t epoch = 1) {
    worker::Launch launch;
    launch.binding = BindingId(binding);
    launch.epoch = EpochId(epoch);
    launch.seq = LaunchSeq(seq);
    for (const uint64_t a : args) launch.args.push_back(BufferId(a));
    launch.outputs = {BufferId(output)};
    graph_.Run(std::move(launch));
  }
  void Free(uint64_t buffer) { graph_.Run(worker::Free{{BufferId(buffer)}}); }
  // "v0 v1", "pending", or "CODE: message".
  std::string Read(uint64_t buffer) {
    const RequestId request(++last_request_);
    graph_.Run(Fetch{request, BufferId(buffer), {worker_}});
    Settle();
    if (!copies.empty()) FinishCopies();
    std::string text = "pending";
    for (const Event& event : events) {
      if (const auto* data = std::get_if<FetchData>(&event);
          data != nullptr && data->request == request) {
        text.clear();
        for (size_t i = 0; i < data->bytes->size(); i += sizeof(float)) {
          float value;
          std::memcpy(&value, data->bytes->data() + i, sizeof(value));
          absl::StrAppend(&text, i > 0 ? " " : "", value);
        }
      }
      if (const auto* reply = std::get_if<Reply>(&event);
          reply != nullptr && reply->request == request && !reply->status.ok()) {
        text = absl::StrCat(absl::StatusCodeToString(reply->status.code()), ": ",
                            std::string(reply->status.message()));
      }
    }
    return text;
  }
  // The highest confirmed launch of epoch 1, and the first failed one (0 = none).
  uint64_t done() const {
    uint64_t seq = 0;
    for (const Event& e : events) {
      if (const auto* d = std::get_if<LaunchDone>(&e)) seq = std::max(seq, d->seq.value());
    }
    return seq;
  }
  std::vector<uint64_t> announced() const {
    std::vector<uint64_t> seqs;
    for (const Event& e : events) {
      if (const auto* a = std::get_if<AtRendezvous>(&e)) seqs.push_back(a->seq.value());
    }
    return seqs;
  }
  uint64_t failed() const {
    for (const Event& e : events) {
      if (const auto* f = std::get_if<LaunchFailed>(&e)) return f->seq.value();
    }
    return 0;
  }

  const int worker_;
  device::FakeDevice device_;
  LaunchLedger ledger_;
  OpGraph graph_;
  absl::Time now = absl::UnixEpoch();
  std::deque<std::shared_ptr<LaunchRecord>> watched;
  struct Copy {
    std::unique_ptr<device::HostCopy> copy;
    absl::AnyInvocable<void(absl::StatusOr<device::HostShard>)> done;
  };
  std::deque<Copy> copies;
  std::deque<absl::AnyInvocable<void()>> posted;
  std::vector<Event> events;
  std::map<TransferId, absl::StatusOr<device::HostBytes>> pushed;
  uint64_t last_request_ = 0;
};

class OpGraphTest : public ::testing::Test {
 protected:
  device::FakeFabric fabric_;
};

TEST_F(OpGraphTest, RunsAChainAndFreesNothingTooEarly) {
  TestWorker w(0, &fabric_);
  w.OpenEpoch(1, {1});
  w.Program(1, kAddOne, {0});
  w.Build(10, {1, 2});
  w.Launch(1, 0, {10}, 11);
  w.Free(10);
  w.Launch(1, 0, {11}, 12);
  EXPECT_EQ(w.Read(12), "3 4");
  EXPECT_NE(w.Read(10).find("not on worker 0"), std::string::npos);
  EXPECT_EQ(w.graph_.stats().buffers, 2);
}

TEST_F(OpGraphTest, ParksWhatWaitsForATransferAndRunsTheRest) {
  TestWorker w(0, &fabric_);
  w.OpenEpoch(1, {1});
  w.Program(1, kAddOne, {0});
  w.BuildFromTransfer(10, 77);
  w.Launch(1, 0, {10}, 11);
  w.Free(10);  // while its reader is parked
  w.Build(20, {5, 5});
  w.Launch(1, 0, {20}, 21);
  EXPECT_EQ(w.Read(21), "6 6");
  EXPECT_EQ(w.Read(11), "pending");
  w.graph_.TransferArrived(TransferId(77), TestWorker::Bytes({1, 2}), {});
  EXPECT_EQ(w.Read(11), "2 3");
}

TEST_F(OpGraphTest, NobodyUsesWhatAFailureAtTheEndTakesBack) {
  TestWorker w(0, &fabric_);
  w.OpenEpoch(1, {1});
  w.Program(1, kAddOne, {0});
  w.Program(2, kFailAtEnd, {0});
  w.Build(10, {1, 2});
  w.Launch(2, 0, {10}, 11);
  w.Launch(1, 0, {11}, 12);
  w.Launch(1, 0, {10}, 13);  // has nothing to do with it
  EXPECT_EQ(w.Read(12), "INVALID_ARGUMENT: a callback");
  EXPECT_EQ(w.Read(11), "INVALID_ARGUMENT: a callback");
  EXPECT_EQ(w.Read(13), "2 3");
  EXPECT_EQ(w.graph_.stats().launches, 2);
}

TEST_F(OpGraphTest, HeldOutputsAreThereAtTheEnd) {
  TestWorker w(0, &fabric_);
  w.OpenEpoch(1, {1});
  w.Program(1, kAddOne, {0});
  w.Program(2, kGoodAtEnd, {0});
  w.Build(10, {1, 2});
  w.Launch(2, 0, {10}, 11);
  w.Launch(1, 0, {11}, 12);
  EXPECT_EQ(w.graph_.stats().launches, 1);
  EXPECT_EQ(w.Read(12), "2 3");
  EXPECT_EQ(w.Read(11), "1 2");
  w.Launch(2, 0, {10}, 14);
  w.Free(14);
  w.Settle();
  EXPECT_EQ(w.graph_.stats().buffers, 3);
}

TEST_F(OpGraphTest, HeldOutputsComeIntoTheNextEpoch) {
  TestWorker w(0, &fabric_);
  w.OpenEpoch(1, {1});
  w.Program(1, kAddOne, {0});
  w.Program(2, kGoodAtEnd, {0});
  w.Program(3, kFailAtEnd, {0});
  w.Build(10, {1, 2});
  w.Launch(2, 0, {10}, 11);
  w.Launch(1, 0, {11}, 12);
  w.Launch(3, 0, {10}, 13);
  w.OpenEpoch(2, {2});
  EXPECT_EQ(w.Read(12), "2 3");
  EXPECT_EQ(w.Read(13), "INVALID_ARGUMENT: a callback");
}

TEST_F(OpGraphTest, AFailureAtTheEndClosesTheEpochAfterwards) {
  TestWorker a(0, &fabric_), b(1, &fabric_);
  for (TestWorker* w : {&a, &b}) {
    w->OpenEpoch(1, {1, 2});
    w->Program(1, w == &a ? kSumFailAtEnd : kSum, {0, 1});
    w->Program(2, kSum, {0, 1});
    w->Build(10, {1, 2});
    w->Launch(1, 1, {10}, 11);
    w->Launch(2, 2, {11}, 12);
  }
  a.Settle();
  b.Settle();
  EXPECT_EQ(a.failed(), 1u);
  EXPECT_EQ(a.graph_.stats().launches, 1);
  EXPECT_EQ(b.done(), 1u);  // its part of the launch came to its end
  EXPECT_EQ(a.Read(12), "INVALID_ARGUMENT: a callback");
}

TEST_F(OpGraphTest, EachLaunchThatCallsItsClientMeetsItsPeers) {
  TestWorker w(0, &fabric_, {}, /*rendezvous=*/true);
  w.OpenEpoch(1, {1, 2});
  device::ProgramSource source;
  source.serialized = kAddOne;
  w.graph_.Run(LoadProgram{ProgramId(1), source});
  worker::Bind bind{BindingId(1), ProgramId(1), {0, 1}, {}, {11}};
  bind.host_callbacks = true;
  w.graph_.Run(std::move(bind));
  w.Build(10, {1, 2});
  for (uint64_t seq = 1; seq <= 3; ++seq) {
    w.Launch(1, seq, {10}, 10 + seq);
    EXPECT_EQ(w.announced().size(), seq);
    EXPECT_EQ(w.graph_.stats().launches, static_cast<int64_t>(seq) - 1);
    w.graph_.Run(Proceed{EpochId(1), LaunchSeq(seq)});
    w.Settle();
    EXPECT_EQ(w.graph_.stats().launches, static_cast<int64_t>(seq));
  }
}

TEST_F(OpGraphTest, KeepsATransferThatCameEarly) {
  TestWorker w(0, &fabric_);
  w.OpenEpoch(1, {1});
  w.graph_.TransferArrived(TransferId(77), TestWorker::Bytes({1, 2}), {});
  w.BuildFromTransfer(10, 77);
  EXPECT_EQ(w.Read(10), "1 2");
}

TEST_F(OpGraphTest, BoundsUnclaimedTransfersAndTellsTheLateBuild) {
  GraphOptions options;
  options.max_unclaimed_bytes = 12;
  TestWorker w(0, &fabric_, options);
  w.OpenEpoch(1, {1});
  w.graph_.TransferArrived(TransferId(1), TestWorker::Bytes({1, 2}), {});
  w.graph_.TransferArrived(TransferId(2), TestWorker::Bytes({3, 4}), {});
  w.BuildFromTransfer(10, 1);
  w.BuildFromTransfer(11, 2);
  EXPECT_EQ(w.Read(10).substr(0, 18), "RESOURCE_EXHAUSTED");
  EXPECT_EQ(w.Read(11), "3 4");
}

TEST_F(OpGraphTest, GivesUpATransferThatNeverComes) {
  TestWorker w(0, &fabric_);
  w.OpenEpoch(1, {1});
  w.BuildFromTransfer(10, 77);
  w.now += absl::Hours(1);
  w.graph_.Tick();
  EXPECT_EQ(w.Read(10).substr(0, 17), "DEADLINE_EXCEEDED");
}

TEST_F(OpGraphTest, FailsTransfersOfALostSenderOnly) {
  TestWorker w(0, &fabric_);
  w.OpenEpoch(1, {1});
  const uint64_t from_1 = uint64_t{2} << 48, from_2 = uint64_t{3} << 48;
  w.BuildFromTransfer(10, from_1 + 1);
  w.BuildFromTransfer(11, from_2 + 1);
  w.graph_.Run(FailTransfers{WorkerId(1), absl::DataLossError("worker 1 is lost")});
  EXPECT_EQ(w.Read(10), "DATA_LOSS: worker 1 is lost");
  EXPECT_EQ(w.Read(11), "pending");
}

TEST_F(OpGraphTest, FailsOneTransferAtOnceUnlessItArrived) {
  TestWorker w(0, &fabric_);
  w.OpenEpoch(1, {1});
  w.BuildFromTransfer(10, 1);
  w.BuildFromTransfer(11, 2);
  w.graph_.TransferArrived(TransferId(2), TestWorker::Bytes({1, 2}), {});
  for (uint64_t id : {1, 2, 3}) {
    w.graph_.Run(FailTransfer{TransferId(id), absl::DataLossError("worker 1 could not send")});
  }
  EXPECT_EQ(w.Read(10), "DATA_LOSS: worker 1 could not send");
  EXPECT_EQ(w.Read(11), "1 2");
}

TEST_F(OpGraphTest, ReadsIntoAFileWhereTheShardBelongs) {
  TestWorker w(0, &fabric_);
  w.OpenEpoch(1, {1});
  w.Build(10, {5, 6});
  std::string path = ::testing::TempDir() + "fetch_XXXXXX";
  const int fd = ::mkstemp(path.data());
  ASSERT_GE(fd, 0);
  const float before[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  ASSERT_EQ(::pwrite(fd, before, sizeof(before), 0), static_cast<ssize_t>(sizeof(before)));
  // The shard is elements 2 and 3 of an array of 4 that begins 8 bytes into the file.
  w.graph_.Run(FetchFile{RequestId(7), path, {{BufferId(10), 0, 8, {4}, {2}}}});
  w.graph_.Run(FetchFile{RequestId(8), path, {{BufferId(10), 0, 8, {4}, {3}}}});
  w.graph_.Run(FetchFile{RequestId(9), path + "?", {{BufferId(10), 0, 0, {2}, {0}}}});
  w.Settle();
  w.FinishCopies();
  float after[8];
  ASSERT_EQ(::pread(fd, after, sizeof(after), 0), static_cast<ssize_t>(sizeof(after)));
  ::close(fd);
  ::unlink(path.c_str());
  EXPECT_EQ(std::vector<float>(after, after + 8), (std::vector<float>{0, 0, 0, 0, 5, 6, 0, 0}));
  std::map<uint64_t, absl::StatusCode> replies;
  for (const Event& event : w.events) {
    if (const auto* reply = std::get_if<Reply>(&event)) {
      replies[reply->request.value()] = reply->status.code();
    }
  }
  EXPECT_EQ(replies[7], absl::StatusCode::kOk);
  EXPECT_EQ(replies[8], absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(replies[9], absl::StatusCode::kNotFound);
  EXPECT_EQ(w.moved, 8);
}

TEST_F(OpGraphTest, AnErrorPoisonsWithItsFirstCause) {
  TestWorker w(0, &fabric_);
  w.OpenEpoch(1, {1});
  w.Program(1, kAddOne, {0});
  w.Program(2, kFail, {0});
  w.Build(10, {1, 2});
  w.Launch(2, 0, {10}, 11);
  w.Settle();
  w.Launch(1, 0, {11}, 12);
  EXPECT_EQ(w.Read(12), "RESOURCE_EXHAUSTED: no room");
  EXPECT_EQ(w.Read(10), "1 2");
}

TEST_F(OpGraphTest, ALaunchThatTakesOverWaitsForEarlierReaders) {
  GraphOptions options;
  options.max_inflight_device = 1;
  TestWorker w(0, &fabric_, options);
  w.OpenEpoch(1, {1});
  w.Program(1, kAddOne, {0});
  w.Program(2, kAddOneDonating, {0});
  w.Build(10, {1, 2});
  w.BuildFromTransfer(11, 5);
  w.Program(3, "fake two; inputs 2; add 0 1; out f32[2] 2", {0});
  w.Launch(3, 0, {10, 11}, 12);  // parked, reads 10
  w.Launch(2, 0, {10}, 13);      // would delete 10 under the parked one
  w.graph_.TransferArrived(TransferId(5), TestWorker::Bytes({10, 10}), {});
  EXPECT_EQ(w.Read(12), "11 12");
  EXPECT_EQ(w.Read(13), "2 3");
}

TEST_F(OpGraphTest, ManyParkedReadersOfTheSameArgumentsCostOneEdgeEach) {
  TestWorker w(0, &fabric_);
  w.OpenEpoch(1, {1});
  w.Program(1, "fake three; inputs 3; add 0 1; add 3 2; out f32[2] 4", {0});
  w.Build(10, {1, 2});
  w.Build(11, {3, 4});
  w.BuildFromTransfer(12, 5);
  for (uint64_t i = 0; i < 100; ++i) w.Launch(1, 0, {10, 11, 12}, 100 + i);
  EXPECT_EQ(w.graph_.stats().edges, 99);
  w.graph_.TransferArrived(TransferId(5), TestWorker::Bytes({10, 10}), {});
  EXPECT_EQ(w.Read(199), "14 16");
  EXPECT_EQ(w.graph_.stats().launches, 100);
}

TEST_F(OpGraphTest, BoundsLaunchesInFlight) {
  GraphOptions options;
  options.max_inflight_device = 2;
  TestWorker w(0, &fabric_, options);
  w.OpenEpoch(1, {1});
  w.Program(1, kAddOne, {0});
  w.Build(100, {0, 0});
  for (uint64_t i = 0; i < 10; ++i) w.Launch(1, 0, {100 + i}, 101 + i);
  EXPECT_EQ(w.watched.size(), 2u);  // nobody confirmed yet
  EXPECT_EQ(w.Read(110), "10 10");
  EXPECT_EQ(w.graph_.stats().launches, 10);
}

TEST_F(OpGraphTest, WhatHasEndedAtOnceIsNotInFlight) {
  GraphOptions options;
  options.max_inflight_device = 1;
  TestWorker w(0, &fabric_, options, /*rendezvous=*/false, {.prompt = true});
  w.OpenEpoch(1, {1});
  w.Program(1, kAddOne, {0});
  w.Build(100, {0, 0});
  for (uint64_t i = 0; i < 9; ++i) w.Launch(1, 0, {100 + i}, 101 + i);
  worker::Launch told{.binding = BindingId(1), .epoch = EpochId(1)};
  told.args = {BufferId(109)};
  told.outputs = {BufferId(110)};
  told.request = RequestId(7);
  w.graph_.Run(std::move(told));
  EXPECT_TRUE(w.watched.empty());
  EXPECT_EQ(w.graph_.stats().launches, 10);
  EXPECT_EQ(w.graph_.stats().edges, 0);
  ASSERT_EQ(w.events.size(), 1u);
  ASSERT_TRUE(std::holds_alternative<Reply>(w.events[0]));
  EXPECT_EQ(std::get<Reply>(w.events[0]).request, RequestId(7));
  EXPECT_EQ(std::get<Reply>(w.events[0]).status, absl::OkStatus());
  EXPECT_EQ(w.Read(110), "10 10");
}

// Two workers with one collective; values count as seen only below the common confirmation.
class OpGraphPairTest : public OpGraphTest {
 protected:
  void Start(GraphOptions options_of_0 = {}) {
    a_ = std::make_unique<TestWorker>(0, &fabric_, options_of_0);
    b_ = std::make_unique<TestWorker>(1, &fabric_);
    for (TestWorker* w : {a_.get(), b_.get()}) {
      w->OpenEpoch(1, {1, 2});
      w->Program(1, kSum, {0, 1});
      w->Program(2, kAddOne, {w->worker_});
      for (uint64_t i = 1; i <= 8; ++i) w->Build(i, {static_cast<float>(i), 0});
    }
  }
  // Launches i = 1..8: sum of inputs i on both workers, so output 100+i = 20 i.
  void RunAll() {
    for (uint64_t i = 1; i <= 8; ++i) {
      for (TestWorker* w : {a_.get(), b_.get()}) w->Launch(1, i, {i}, 100 + i);
      for (TestWorker* w : {a_.get(), b_.get()}) w->Settle();
    }
    for (int n = 0; n < 3; ++n) {
      for (TestWorker* w : {a_.get(), b_.get()}) w->Settle();
    }
  }
  // What a head would show: the value if all members confirmed the launch, else nothing.
  void ExpectNeverWrong() {
    const uint64_t confirmed = std::min(a_->done(), b_->done());
    for (uint64_t i = 1; i <= confirmed; ++i) {
      EXPECT_EQ(a_->Read(100 + i), absl::StrCat(20 * i, " 0"));
      EXPECT_EQ(b_->Read(100 + i), absl::StrCat(20 * i, " 0"));
    }
  }
  std::unique_ptr<TestWorker> a_, b_;
};

TEST_F(OpGraphTest, ALifeInAnotherPlaceBoundsItsLaunchesThere) {
  GraphOptions options;
  options.max_inflight_device = 2;
  TestWorker w(0, &fabric_, options);
  w.OpenEpoch(1, {1});
  // A spare that lost place 0 is given place 1.
  w.graph_.Reset(1);
  TestWorker moved(1, &fabric_);  // numbers its shards
  moved.OpenEpoch(2, {0, 3});
  worker::OpenEpoch open;
  open.epoch = EpochId(2);
  open.nodes.nodes = {0, 5};
  ASSERT_TRUE(
      w.graph_.OpenEpoch(open, {.epoch = 2, .node = 5, .worker = 1, .devices_per_host = 1})
          .status.ok());
  w.Program(1, kAddOne, {1});
  w.graph_.Run(worker::Build{BufferId(100), 11, "", {moved.Inline({0, 0})}});
  for (uint64_t i = 0; i < 10; ++i) w.Launch(1, 0, {100 + i}, 101 + i);
  EXPECT_EQ(w.watched.size(), 2u);  // nobody confirmed yet
  w.Settle();
  EXPECT_EQ(w.graph_.stats().launches, 10);
  EXPECT_NE(w.Read(99).find("not on worker 1"), std::string::npos);
}

TEST_F(OpGraphTest, AnotherLifeLetsGoOfWhatWaitedForTransfers) {
  TestWorker w(0, &fabric_);
  w.OpenEpoch(1, {1});
  w.Program(1, kAddOne, {0});
  device::HostBytes half = TestWorker::Bytes({1});
  const std::weak_ptr<const device::HostBlock> arrived = half;
  ShardBuild shard = w.Inline({0, 0});
  shard.kind = ShardBuild::Kind::kPieces;
  shard.pieces.resize(2);
  for (int64_t p = 0; p < 2; ++p) {
    shard.pieces[p].start = {p};
    shard.pieces[p].dims = {1};
    shard.pieces[p].transfer = TransferId(77 + static_cast<uint64_t>(p));
  }
  w.graph_.Run(worker::Build{BufferId(10), 11, "", {shard}});
  w.Launch(1, 0, {10}, 11);
  Send send;
  send.buffer = BufferId(11);
  send.to = WorkerId(1);
  send.transfer = TransferId(79);
  w.graph_.Run(send);
  w.Free(11);  // while it is parked: only what waits for it knows it
  w.graph_.TransferArrived(TransferId(77), std::move(half), {});
  EXPECT_FALSE(arrived.expired());
  w.graph_.Reset(0);
  w.Settle();
  EXPECT_TRUE(arrived.expired());
  // The next life's transfers may have the same numbers.
  EXPECT_TRUE(w.pushed.empty());
  EXPECT_EQ(w.graph_.stats().parked_launches, 0);
  w.OpenEpoch(2, {1});
  w.BuildFromTransfer(10, 78);
  w.graph_.TransferArrived(TransferId(78), TestWorker::Bytes({1, 2}), {});
  EXPECT_EQ(w.Read(10), "1 2");
}

TEST_F(OpGraphPairTest, CollectivesConfirmInOrder) {
  Start();
  RunAll();
  EXPECT_EQ(a_->done(), 8u);
  EXPECT_EQ(b_->done(), 8u);
  ExpectNeverWrong();
}

TEST_F(OpGraphPairTest, ASkippedLaunchIsAnErrorNeverAWrongValue) {
  GraphOptions options;
  options.faults.skip_launch = 4;
  Start(options);
  RunAll();
  EXPECT_EQ(a_->failed(), 4u);
  EXPECT_EQ(a_->done(), 3u);
  ExpectNeverWrong();
  EXPECT_EQ(a_->Read(108).substr(0, 8), "INTERNAL");
}

TEST_F(OpGraphTest, FaultsComeBackWithTheirPeriod) {
  GraphOptions options;
  options.faults.oom_launch = 2;
  options.faults.period = 3;
  TestWorker w(0, &fabric_, options);
  int failed = 0;
  for (uint64_t epoch = 1; epoch <= 6; ++epoch) {
    w.OpenEpoch(epoch, {static_cast<int32_t>(epoch)});
    w.Program(epoch, kAddOne, {0});
    w.Build(epoch, {1, 2});
    w.Launch(epoch, epoch, {epoch}, 100 + epoch, epoch);
    w.Settle();
    if (w.Read(100 + epoch).find("RESOURCE_EXHAUSTED") != std::string::npos) ++failed;
  }
  EXPECT_EQ(failed, 2);  // the 2nd and the 5th
}

TEST_F(OpGraphPairTest, ASwappedPairIsAnErrorNeverAWrongValue) {
  GraphOptions options;
  options.faults.swap_launch = 4;
  Start(options);
  RunAll();
  EXPECT_EQ(a_->failed(), 4u);
  EXPECT_LE(a_->done(), 3u);
  ExpectNeverWrong();
}

TEST_F(OpGraphPairTest, OutOfMemoryAtLaunchClosesTheEpochHere) {
  GraphOptions options;
  options.faults.oom_launch = 2;
  Start(options);
  RunAll();
  EXPECT_EQ(a_->failed(), 2u);
  EXPECT_EQ(a_->Read(105).substr(0, 18), "RESOURCE_EXHAUSTED");
  a_->Launch(2, 0, {1}, 200);  // local work goes on
  EXPECT_EQ(a_->Read(200), "2 1");
  ExpectNeverWrong();
}

TEST_F(OpGraphPairTest, AnErroredInputIsReportedNotLaunched) {
  Start();
  a_->graph_.Run(FailTransfers{WorkerId(1), absl::DataLossError("lost")});
  a_->BuildFromTransfer(50, (uint64_t{2} << 48) + 1);
  a_->graph_.Run(FailTransfers{WorkerId(1), absl::DataLossError("lost")});
  a_->Launch(1, 1, {50}, 101);
  EXPECT_EQ(a_->failed(), 1u);
  EXPECT_EQ(a_->Read(101), "DATA_LOSS: lost");
}

TEST_F(OpGraphPairTest, AParkedMultiLaunchHoldsBackLaterOnesOnly) {
  Start();
  a_->BuildFromTransfer(50, 9);
  a_->Launch(1, 1, {50}, 101);
  a_->Launch(1, 2, {2}, 102);
  a_->Launch(2, 0, {3}, 200);
  EXPECT_EQ(a_->Read(200), "4 1");
  b_->Launch(1, 1, {1}, 101);
  b_->Launch(1, 2, {2}, 102);
  EXPECT_EQ(a_->Read(102), "pending");
  a_->graph_.TransferArrived(TransferId(9), TestWorker::Bytes({7, 0}), {});
  // The two are independent: the second one starts on each side when the first has ended there.
  for (int turn = 0; turn < 3; ++turn) {
    a_->Settle();
    b_->Settle();
  }
  EXPECT_EQ(a_->Read(101), "80 0");
  EXPECT_EQ(a_->Read(102), "40 0");
}

TEST_F(OpGraphPairTest, AMultiLaunchWaitsForEarlierSendsThatItsPeersMayNeed) {
  Start();
  // b's argument is the sum of a local program on a that itself waits for a transfer.
  a_->BuildFromTransfer(50, 9);
  a_->Launch(2, 0, {50}, 51);
  a_->graph_.Run(Send{.transfer = TransferId(77), .buffer = BufferId(51), .to = WorkerId(1)});
  b_->BuildFromTransfer(52, 77);
  // a has its own argument at once. In the launch it would never get to the Send.
  a_->Launch(1, 1, {1}, 101);
  b_->Launch(1, 1, {52}, 101);
  EXPECT_EQ(a_->graph_.stats().launches, 0);
  a_->Launch(2, 0, {3}, 200);  // not held back
  EXPECT_EQ(a_->graph_.stats().launches, 1);
  a_->graph_.TransferArrived(TransferId(9), TestWorker::Bytes({7, 0}), {});
  a_->Settle();
  a_->FinishCopies();
  ASSERT_TRUE(a_->pushed.contains(TransferId(77)));
  EXPECT_EQ(a_->graph_.stats().launches, 3);
  b_->graph_.TransferArrived(TransferId(77), a_->pushed[TransferId(77)], {});
  a_->Settle();
  b_->Settle();
  EXPECT_EQ(a_->Read(101), b_->Read(101));
  EXPECT_NE(a_->Read(101), "pending");
}

TEST_F(OpGraphTest, TheFirstLaunchOfABindingWaitsForItsPeers) {
  TestWorker a(0, &fabric_, {}, /*rendezvous=*/true);
  TestWorker b(1, &fabric_);
  for (TestWorker* w : {&a, &b}) {
    w->OpenEpoch(1, {1, 2});
    w->Program(1, kSum, {0, 1});
    w->Program(2, kAddOne, {w->worker_});
    w->Build(1, {1, 0});
    w->Launch(2, 0, {1}, 90);
  }
  a.Launch(1, 1, {1}, 101);
  EXPECT_EQ(a.announced(), std::vector<uint64_t>{}) << "a local program runs before it";
  a.Settle();
  EXPECT_EQ(a.announced(), std::vector<uint64_t>{1});
  a.Launch(1, 2, {101}, 102);
  EXPECT_EQ(a.graph_.stats().launches, 1);
  a.graph_.Run(Proceed{EpochId(1), LaunchSeq(7)});  // not this one
  EXPECT_EQ(a.graph_.stats().launches, 1);
  a.graph_.Run(Proceed{EpochId(1), LaunchSeq(1)});
  EXPECT_EQ(a.graph_.stats().launches, 3) << "the second launch of a binding asks nobody";
  b.Launch(1, 1, {1}, 101);
  b.Launch(1, 2, {101}, 102);
  for (int turn = 0; turn < 3; ++turn) {
    a.Settle();
    b.Settle();
  }
  EXPECT_EQ(a.Read(102), "400 0");
  EXPECT_EQ(a.announced(), std::vector<uint64_t>{1});
}

TEST_F(OpGraphTest, AFirstLaunchThatCannotRunTellsAtOnce) {
  TestWorker a(0, &fabric_, {}, /*rendezvous=*/true);
  a.OpenEpoch(1, {1, 2});
  a.Program(1, kSum, {0, 1});
  a.Launch(1, 1, {55}, 101);  // nobody has sent buffer 55
  EXPECT_EQ(a.announced(), std::vector<uint64_t>{});
  EXPECT_TRUE(a.failed());
}

TEST_F(OpGraphPairTest, ALaunchThatCannotStartSaysWhatItWaitsFor) {
  Start();
  EXPECT_EQ(a_->graph_.waiting_launch().seq, LaunchSeq(0));
  a_->BuildFromTransfer(50, (uint64_t{2} << 48) + 9);
  a_->Launch(1, 1, {50}, 101);
  EXPECT_EQ(a_->graph_.waiting_launch().seq, LaunchSeq(1));
  EXPECT_EQ(a_->graph_.waiting_launch().what,
            absl::StrCat("argument 0 (buffer 50) is not there; transfer ",
                         (uint64_t{2} << 48) + 9, " from worker 1 has not come"));
  a_->graph_.TransferArrived(TransferId((uint64_t{2} << 48) + 9), TestWorker::Bytes({7, 0}), {});
  EXPECT_EQ(a_->graph_.waiting_launch().seq, LaunchSeq(0));
  a_->Launch(1, 2, {2}, 102);  // independent of the first one, which waits for its peer
  EXPECT_EQ(a_->graph_.waiting_launch().seq, LaunchSeq(2));
  EXPECT_EQ(a_->graph_.waiting_launch().what, "1 launches before it have not ended");
}

TEST_F(OpGraphPairTest, ANewcomersNodeReachesProgramsThatWereLoadedBefore) {
  Start();
  // Worker 1 dies before anything was launched; another life of it joins under node 3.
  a_->graph_.Run(SetNodes{EpochId(1), {{1, 3}, {}}});
  TestWorker newcomer(1, &fabric_);
  newcomer.OpenEpoch(1, {1, 3});
  newcomer.Program(1, kSum, {0, 1});
  newcomer.Build(1, {1, 0});
  a_->Launch(1, 1, {1}, 101);
  newcomer.Launch(1, 1, {1}, 101);
  a_->Settle();
  EXPECT_EQ(a_->Read(101), "20 0");
  EXPECT_EQ(a_->done(), 1u);
}

TEST_F(OpGraphTest, WhatHasEndedAtOnceIsConfirmedInOrder) {
  TestWorker a(0, &fabric_, {}, /*rendezvous=*/false, {.prompt = true});
  TestWorker b(1, &fabric_, {}, /*rendezvous=*/false, {.prompt = true});
  for (TestWorker* w : {&a, &b}) {
    w->OpenEpoch(1, {1, 2});
    w->Program(1, kSum, {0, 1});
    w->Build(1, {1, 2});
  }
  a.Launch(1, 1, {1}, 101);
  EXPECT_EQ(a.watched.size(), 1u);  // its peer has not come
  b.Launch(1, 1, {1}, 101);
  EXPECT_TRUE(b.watched.empty());
  EXPECT_EQ(b.done(), 1u);
  // This one ends at once on its second worker, where the one before it is not confirmed yet.
  b.Launch(1, 2, {101}, 102);
  a.Launch(1, 2, {101}, 102);
  ASSERT_EQ(a.watched.size(), 2u);
  EXPECT_EQ(a.watched.back()->completion, nullptr);
  EXPECT_EQ(a.done(), 0u);
  a.Settle();
  b.Settle();
  EXPECT_EQ(a.done(), 2u);
  EXPECT_EQ(b.done(), 2u);
  EXPECT_EQ(a.Read(102), "400 800");
}

TEST_F(OpGraphPairTest, ARepeatedNumberClosesTheEpoch) {
  Start();
  a_->Launch(1, 3, {1}, 101);
  a_->Launch(1, 3, {1}, 102);
  EXPECT_EQ(a_->failed(), 3u);
}

TEST_F(OpGraphPairTest, AnAbortFreesWhoWaitsAndBuffersLiveOn) {
  Start();
  a_->Launch(1, 1, {1}, 101);  // its peer never comes
  a_->Launch(2, 0, {2}, 200);
  a_->Settle();
  EXPECT_EQ(a_->watched.size(), 2u);
  const absl::Status cause = absl::DataLossError("slice 1 is lost");
  a_->ledger_.Abort(EpochId(1), cause);
  EXPECT_EQ(a_->device_.AbortCollectives(), 1);
  a_->graph_.DropParkedLaunches(EpochId(1), cause);
  a_->Settle();
  EXPECT_EQ(a_->failed(), 0u);  // the head knows already
  EXPECT_TRUE(a_->ledger_.WaitIdle(absl::ZeroDuration()));
  a_->Launch(1, 2, {1}, 102);
  EXPECT_EQ(a_->Read(102), "DATA_LOSS: slice 1 is lost");
  a_->OpenEpoch(2, {3, 0});
  EXPECT_EQ(a_->Read(5), "5 0");
  a_->Program(4, kSum, {0});
  a_->Launch(4, 1, {5}, 300, 2);
  EXPECT_EQ(a_->Read(300), "50 0");
  a_->Launch(1, 2, {1}, 301, 2);  // needs the worker that is gone
  EXPECT_EQ(a_->Read(301).substr(0, 9), "DATA_LOSS");
}

TEST_F(OpGraphPairTest, ALaunchThatIsDroppedStillStandsBetweenReaderAndTaker) {
  Start();
  a_->BuildFromTransfer(51, 9);
  a_->Program(3, "fake two; inputs 2; add 0 1; out f32[2] 2", {0});
  a_->Program(4, kAddOneDonating, {0});
  a_->Launch(3, 0, {5, 51}, 60);  // parked, reads 5
  a_->Launch(1, 1, {5}, 101);     // waits for that one
  const absl::Status cause = absl::DataLossError("slice 1 is lost");
  a_->ledger_.Abort(EpochId(1), cause);
  a_->graph_.DropParkedLaunches(EpochId(1), cause);
  a_->Launch(4, 0, {5}, 61);  // would delete 5 under the parked one
  EXPECT_EQ(a_->Read(61), "pending");
  a_->graph_.TransferArrived(TransferId(9), TestWorker::Bytes({7, 7}), {});
  EXPECT_EQ(a_->Read(60), "12 7");
  EXPECT_EQ(a_->Read(61), "6 1");
}

TEST_F(OpGraphTest, PutsPiecesTogether) {
  TestWorker w(0, &fabric_);
  w.OpenEpoch(1, {1});
  w.Build(10, {1, 2, 3, 4});
  ShardBuild shard;
  shard.kind = ShardBuild::Kind::kPieces;
  shard.dims = {4};
  Piece local;
  local.start = {0};
  local.dims = {2};
  local.buffer = BufferId(10);
  local.source_start = {2};
  Piece remote;
  remote.start = {2};
  remote.dims = {2};
  remote.transfer = TransferId(7);
  shard.pieces = {local, remote};
  w.graph_.Run(Build{BufferId(11), 11, "", {shard}});
  w.graph_.TransferArrived(TransferId(7), TestWorker::Bytes({9, 8}), {});
  w.FinishCopies();
  EXPECT_EQ(w.Read(11), "3 4 9 8");
}

TEST_F(OpGraphTest, SendsABoxOrTheErrorInItsPlace) {
  TestWorker w(0, &fabric_);
  w.OpenEpoch(1, {1});
  w.Build(10, {1, 2, 3, 4});
  w.graph_.Run(Send{TransferId(1), BufferId(10), 0, WorkerId(1), false, {1}, {2}});
  w.graph_.Run(Send{TransferId(2), BufferId(99), 0, WorkerId(1)});
  w.FinishCopies();
  ASSERT_TRUE(w.pushed[TransferId(1)].ok());
  EXPECT_EQ(std::memcmp((*w.pushed[TransferId(1)])->data(), TestWorker::Bytes({2, 3})->data(), 8),
            0);
  EXPECT_FALSE(w.pushed[TransferId(2)].ok());
}

TEST_F(OpGraphTest, ABindingOfDevicesThatCannotBeFailsItsLaunches) {
  TestWorker w(0, &fabric_);
  w.OpenEpoch(1, {1});
  w.Program(1, kAddOne, {0, -3});
  w.Build(10, {1, 2});
  Launch launch{.binding = BindingId(1), .epoch = EpochId(1)};
  launch.args = {BufferId(10)};
  launch.outputs = {BufferId(11)};
  launch.request = RequestId(5);
  w.graph_.Run(launch);
  ASSERT_FALSE(w.events.empty());
  const auto* reply = std::get_if<Reply>(&w.events.back());
  ASSERT_NE(reply, nullptr);
  EXPECT_EQ(reply->status.code(), absl::StatusCode::kInvalidArgument);
}

TEST(FaultPlanTest, RefusesWhatItDoesNotKnow) {
  EXPECT_EQ(ParseFaultPlan("skip_launch=5,oom_launch=7")->oom_launch, 7);
  EXPECT_FALSE(ParseFaultPlan("skip=5").ok());
  EXPECT_FALSE(ParseFaultPlan("skip_launch=0").ok());
  EXPECT_EQ(ParseFaultPlan("skip_launch=5,period=9")->period, 9);
}

}  // namespace
}  // namespace causeway::worker
