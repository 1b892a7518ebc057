// Tests of the control service over real sockets, with a worker made of a plain one.
#include "causeway/controller/control_service.h"

#include <sys/socket.h>

#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "causeway/core/send_burst.h"
#include "causeway/net/frames.h"
#include "causeway/net/local_sockets.h"
#include "causeway/net/sockets.h"
#include "causeway/wire/control_codec.h"
#include "causeway/wire/control_frames.h"
#include "control.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::controller {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using wire::ControlFrame;

constexpr absl::Duration kBound = absl::Seconds(30);

class FakeSink : public core::WorkerSink {
 public:
  absl::StatusOr<core::WorkerAdmission> OnAttached(
      const core::WorkerHello& hello, std::shared_ptr<core::WorkerLink> link) override {
    absl::MutexLock lock(&mu_);
    if (!refusal_.ok()) return refusal_;
    hello_ = hello;
    link_ = std::move(link);
    link_->Send(Text("welcome"));
    return core::WorkerAdmission{Incarnation(41), absl::StrCat("token", ++attached_)};
  }
  void OnEvent(WorkerId worker, Incarnation incarnation, absl::string_view bytes) override {
    control::Event event;
    absl::MutexLock lock(&mu_);
    EXPECT_EQ(detached_, 0);
    EXPECT_EQ(incarnation, Incarnation(41));
    EXPECT_TRUE(event.ParseFromString(std::string(bytes)));
    events_.push_back(std::move(event));
  }
  void OnDetached(WorkerId worker, Incarnation incarnation, const std::string& why) override {
    absl::MutexLock lock(&mu_);
    ++detached_;
    why_ = why;
  }

  static std::shared_ptr<const std::string> Text(const std::string& text) {
    control::Command command;
    command.mutable_shutdown()->set_reason(text);
    return std::make_shared<const std::string>(command.SerializeAsString());
  }
  void Refuse(absl::Status why) {
    absl::MutexLock lock(&mu_);
    refusal_ = std::move(why);
  }
  std::shared_ptr<core::WorkerLink> WaitLink() {
    Await([this] { return link_ != nullptr; });
    absl::MutexLock lock(&mu_);
    return link_;
  }
  bool WaitDetached() {
    return Await([this] { return detached_ > 0; });
  }
  bool WaitEvents(size_t n) {
    return Await([this, n] { return events_.size() >= n; });
  }
  std::vector<control::Event> events() {
    absl::MutexLock lock(&mu_);
    return events_;
  }
  core::WorkerHello hello() {
    absl::MutexLock lock(&mu_);
    return hello_;
  }
  int detached() {
    absl::MutexLock lock(&mu_);
    return detached_;
  }
  std::string why() {
    absl::MutexLock lock(&mu_);
    return why_;
  }

 private:
  bool Await(std::function<bool()> condition) {
    absl::MutexLock lock(&mu_);
    return mu_.AwaitWithTimeout(absl::Condition(&condition), kBound);
  }

  absl::Mutex mu_;
  absl::Status refusal_;
  int attached_ = 0;
  int detached_ = 0;
  std::string why_;
  core::WorkerHello hello_;
  std::shared_ptr<core::WorkerLink> link_;
  std::vector<control::Event> events_;
};

// A worker made of a plain socket.
class Peer {
 public:
  Peer(int port, ControlFrame lane) : Peer(*net::Connect("127.0.0.1", port), lane) {}
  Peer(net::Socket socket, ControlFrame lane) : socket_(std::move(socket)), lane_(lane) {
    EXPECT_TRUE(net::SetTimeouts(socket_.fd(), kBound, kBound).ok());
  }

  bool SendFrame(ControlFrame kind, const std::string& payload) {
    std::string bytes;
    net::AppendFrame(Kind(kind), payload, &bytes);
    return net::SendAll(socket_.fd(), bytes).ok();
  }
  bool Send(const control::Event& event) {
    return SendFrame(ControlFrame::kMessage, event.SerializeAsString());
  }
  static control::Event HelloOf(const std::string& token) {
    control::Event event;
    event.mutable_hello()->set_worker(3);
    event.mutable_hello()->set_pid(17);
    event.mutable_hello()->set_host("h");
    event.mutable_hello()->set_num_devices(4);
    event.mutable_hello()->set_token(token);
    return event;
  }
  bool Hello(const std::string& token = "") {
    return SendFrame(lane_, HelloOf(token).SerializeAsString());
  }
  // Says that nothing more comes.
  bool Farewell(const absl::Status& why = absl::OkStatus()) {
    return SendFrame(ControlFrame::kEnd, *wire::EncodeEnd(why));
  }
  // The commands that have come; at least one, or none at the end.
  std::vector<control::Command> Read() {
    std::vector<control::Command> commands;
    while (commands.empty() && !over_) {
      const absl::Span<char> space = reader_.Space();
      const ssize_t size = ::recv(socket_.fd(), space.data(), space.size(), 0);
      if (size <= 0) break;
      reader_.Received(static_cast<size_t>(size));
      while (true) {
        auto frame = reader_.Next();
        EXPECT_TRUE(frame.ok()) << frame.status();
        if (!frame.ok() || !frame->has_value()) break;
        if ((*frame)->kind == Kind(ControlFrame::kEnd)) {
          end_ = wire::DecodeEnd((*frame)->payload);
          over_ = true;
        } else {
          EXPECT_TRUE(commands.emplace_back().ParseFromString(std::string((*frame)->payload)));
        }
      }
    }
    over_ = over_ || commands.empty();
    return commands;
  }
  // Reads to the end; the head's words, or UNKNOWN when it said none.
  absl::Status Finish() {
    while (!over_) Read();
    return end_;
  }
  void Cut() { ::shutdown(socket_.fd(), SHUT_RDWR); }
  int fd() const { return socket_.fd(); }

 private:
  const net::Socket socket_;
  const ControlFrame lane_;
  net::FrameReader reader_{1 << 30};
  bool over_ = false;
  absl::Status end_ = absl::UnknownError("the head did not say why");
};

class ControlServiceTest : public ::testing::Test {
 protected:
  ControlServiceTest() : service_(sink_, timers_) {
    EXPECT_TRUE(service_.Listen("127.0.0.1", 0).ok());
  }
  ~ControlServiceTest() override {
    service_.Shutdown("the test is over");
    service_.Stop(absl::Seconds(5));
  }

  std::unique_ptr<Peer> Connect(bool bulk = false) {
    return std::make_unique<Peer>(service_.port(),
                                  bulk ? ControlFrame::kBulk : ControlFrame::kAttach);
  }

  FakeSink sink_;
  RealTimers timers_;
  ControlService service_;
};

// Reads a stream on a thread of its own until it ends.
class Reader {
 public:
  using Commands = std::vector<control::Command>;
  using Condition = std::function<bool(const Commands&)>;

  template <class Worker>
  explicit Reader(Worker& worker)
      : cancel_([&worker] { worker.Cut(); }), thread_([this, &worker] {
          for (Commands next = worker.Read(); !next.empty(); next = worker.Read()) {
            absl::MutexLock lock(&Shared());
            for (control::Command& command : next) commands_.push_back(std::move(command));
          }
        }) {}
  ~Reader() {
    cancel_();
    thread_.join();
  }
  Commands commands() {
    absl::MutexLock lock(&Shared());
    return commands_;
  }
  bool Await(Condition condition) { return AwaitEither(*this, *this, std::move(condition)); }
  static bool AwaitEither(Reader& a, Reader& b, Condition condition) {
    auto met = [&] { return condition(a.commands_) || condition(b.commands_); };
    absl::MutexLock lock(&Shared());
    return Shared().AwaitWithTimeout(absl::Condition(&met), kBound);
  }

  // Sends probes, which go by the control stream until the head has seen the bulk stream.
  static bool AwaitBulk(core::WorkerLink& link, Reader& by_control, Reader& by_bulk) {
    for (uint64_t probe = 1000; by_bulk.commands().empty(); ++probe) {
      link.SendData(TransferId(probe), absl::Cord("probe"));
      auto arrived = [probe](const Commands& commands) {
        return !commands.empty() && commands.back().data().transfer() == probe;
      };
      if (!AwaitEither(by_control, by_bulk, arrived)) return false;
    }
    return true;
  }

 private:
  // One lock for all readers, so that a test can wait for any of them.
  static absl::Mutex& Shared() {
    static absl::Mutex* mu = new absl::Mutex();
    return *mu;
  }

  std::function<void()> cancel_;
  Commands commands_;
  std::thread thread_;
};

TEST_F(ControlServiceTest, EventsArriveInOrder) {
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  for (int i = 0; i < 1000; ++i) {
    control::Event event;
    event.mutable_pong()->set_number(i);
    ASSERT_TRUE(worker->Send(event));
  }
  ASSERT_TRUE(sink_.WaitEvents(1000));
  const std::vector<control::Event> events = sink_.events();
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(events[i].pong().number(), i);
  EXPECT_EQ(sink_.hello().worker, WorkerId(3));
  EXPECT_EQ(sink_.hello().pid, 17);
  EXPECT_EQ(service_.num_attached(), 1);
}

TEST_F(ControlServiceTest, CommandsArriveInOrderThroughAFullSocket) {
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  auto link = sink_.WaitLink();
  ASSERT_NE(link, nullptr);
  // Nobody reads yet, so the socket fills up and a queue forms.
  const std::string filler(20'000, 'f');
  constexpr int kCommands = 2000;
  for (int i = 0; i < kCommands; ++i) link->Send(FakeSink::Text(absl::StrCat(i, ":", filler)));
  EXPECT_GT(link->queued_bytes(), 1 << 20);
  int next = -1;  // the first is the welcome
  while (next < kCommands) {
    const std::vector<control::Command> commands = worker->Read();
    ASSERT_FALSE(commands.empty());
    for (const control::Command& command : commands) {
      const std::string expected = next < 0 ? "welcome" : absl::StrCat(next, ":", filler);
      ASSERT_EQ(command.shutdown().reason(), expected);
      ++next;
    }
  }
}

TEST_F(ControlServiceTest, WhatMayWaitLeavesByItselfOrWithTheNextInOrder) {
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  auto link = sink_.WaitLink();
  ASSERT_NE(link, nullptr);
  link->SendSoon(FakeSink::Text("first"));
  std::vector<std::string> reasons;
  auto read = [&] {
    for (const control::Command& command : worker->Read()) {
      reasons.push_back(command.shutdown().reason());
    }
  };
  while (reasons.size() < 2) read();  // nothing was sent behind it
  link->SendSoon(FakeSink::Text("second"));
  link->Send(FakeSink::Text("third"));
  while (reasons.size() < 4) read();
  EXPECT_THAT(reasons, ElementsAre("welcome", "first", "second", "third"));
}

// Links without a worker, which make a burst one to many.
class CountingLink : public core::SendBurst::Link {
 public:
  void WriteQueued() override {
    absl::MutexLock lock(&mu_);
    writers_.push_back(std::this_thread::get_id());
  }
  bool HasAnswered() const override { return true; }
  void HandOver(std::vector<std::shared_ptr<core::SendBurst::Link>>) override {
    ADD_FAILURE() << "the first link of a burst hands all over";
  }
  std::vector<std::thread::id> writers() {
    absl::MutexLock lock(&mu_);
    return writers_;
  }

 private:
  absl::Mutex mu_;
  std::vector<std::thread::id> writers_;
};

std::vector<std::shared_ptr<CountingLink>> AddMany(core::SendBurst& burst) {
  std::vector<std::shared_ptr<CountingLink>> links;
  for (size_t i = 0; i < core::SendBurst::kOwnWritesToIdleMax; ++i) {
    links.push_back(std::make_shared<CountingLink>());
    burst.Add(links.back());
  }
  return links;
}

TEST_F(ControlServiceTest, NothingLeavesBeforeTheEndOfABurst) {
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  auto link = sink_.WaitLink();
  ASSERT_NE(link, nullptr);
  size_t commands = worker->Read().size();
  ASSERT_EQ(commands, 1);
  {
    core::SendBurst burst;
    link->Send(FakeSink::Text("command"));
    link->SendSoon(FakeSink::Text("command"));
    link->Send(FakeSink::Text("command"));
    EXPECT_EQ(link->queued_bytes(), static_cast<int64_t>(3 * FakeSink::Text("command")->size()));
  }
  EXPECT_EQ(link->queued_bytes(), 0);  // written by this thread
  while (commands < 4) commands += worker->Read().size();
  EXPECT_EQ(commands, 4);
}

TEST_F(ControlServiceTest, ABurstToManyIsWrittenByAThreadOfItsOwnInOrder) {
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  auto link = sink_.WaitLink();
  ASSERT_NE(link, nullptr);
  constexpr int kBursts = 50;
  std::vector<std::shared_ptr<CountingLink>> others;
  for (int i = 0; i < kBursts; ++i) {
    core::SendBurst burst;
    link->Send(FakeSink::Text(absl::StrCat(i)));
    // A link that waits already for the writer is not in the burst, and cannot hand it over.
    if (i == 0) others = AddMany(burst);
  }
  int next = -1;  // the first is the welcome
  while (next < kBursts) {
    const std::vector<control::Command> commands = worker->Read();
    ASSERT_FALSE(commands.empty());
    for (const control::Command& command : commands) {
      ASSERT_EQ(command.shutdown().reason(), next < 0 ? "welcome" : absl::StrCat(next));
      ++next;
    }
  }
  service_.Stop(absl::ZeroDuration());  // the writer is done with what it had begun
  for (const auto& other : others) {
    ASSERT_EQ(other->writers().size(), 1);
    EXPECT_NE(other->writers()[0], std::this_thread::get_id());
  }
}

TEST_F(ControlServiceTest, AWorkerHasAnsweredWhenItHasSentAnEventSinceTheLastBurst) {
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  auto link = sink_.WaitLink();
  ASSERT_NE(link, nullptr);
  ASSERT_FALSE(worker->Read().empty());
  auto* const of_burst = dynamic_cast<core::SendBurst::Link*>(link.get());
  ASSERT_NE(of_burst, nullptr);
  EXPECT_TRUE(of_burst->HasAnswered());
  {
    core::SendBurst burst;
    link->Send(FakeSink::Text("question"));
  }
  EXPECT_FALSE(of_burst->HasAnswered());
  ASSERT_TRUE(worker->Send(control::Event()));
  ASSERT_TRUE(sink_.WaitEvents(1));
  EXPECT_TRUE(of_burst->HasAnswered());
}

TEST_F(ControlServiceTest, ABurstMayEndAfterTheService) {
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  auto link = sink_.WaitLink();
  ASSERT_NE(link, nullptr);
  core::SendBurst burst;
  link->Send(FakeSink::Text("late"));
  const auto others = AddMany(burst);
  service_.Stop(absl::ZeroDuration());
  burst.Release();
  EXPECT_EQ(link->queued_bytes(), 0);
  for (const auto& other : others) EXPECT_TRUE(other->writers().empty());
}

TEST_F(ControlServiceTest, ARefusalReachesTheWorkerInFull) {
  sink_.Refuse(absl::FailedPreconditionError("worker 3's place is taken by pid 9; end it first"));
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  EXPECT_TRUE(worker->Read().empty());
  EXPECT_EQ(worker->Finish(),
            absl::FailedPreconditionError("worker 3's place is taken by pid 9; end it first"));
  EXPECT_EQ(sink_.detached(), 0);
}

TEST_F(ControlServiceTest, AStreamThatDoesNotBeginWithHelloIsRefused) {
  auto worker = Connect();
  control::Event event;
  event.mutable_pong();
  ASSERT_TRUE(worker->Send(event));
  EXPECT_TRUE(worker->Read().empty());
  EXPECT_EQ(worker->Finish().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ControlServiceTest, ALostConnectionDetachesOnce) {
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  ASSERT_EQ(worker->Read().size(), 1u);
  auto bulk = Connect(true);
  ASSERT_TRUE(bulk->Hello("token1"));
  auto link = sink_.WaitLink();
  ASSERT_NE(link, nullptr);
  {
    Reader by_control(*worker), by_bulk(*bulk);
    ASSERT_TRUE(Reader::AwaitBulk(*link, by_control, by_bulk));
  }  // both streams are broken off here
  ASSERT_TRUE(sink_.WaitDetached());
  EXPECT_THAT(sink_.why(), HasSubstr("lost"));
  // A link to nobody swallows what it is given.
  link->Send(FakeSink::Text("late"));
  link->Close("late");
  EXPECT_EQ(link->queued_bytes(), 0);
  service_.Shutdown("the test is over");
  service_.Stop(absl::Seconds(5));
  EXPECT_EQ(sink_.detached(), 1);
  EXPECT_EQ(service_.num_attached(), 0);
}

TEST_F(ControlServiceTest, AnOrderlyEndDetachesAfterTheLastEvent) {
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  control::Event event;
  event.mutable_pong()->set_number(5);
  ASSERT_TRUE(worker->Send(event));
  ASSERT_TRUE(worker->Farewell());
  ASSERT_TRUE(sink_.WaitDetached());
  EXPECT_EQ(sink_.events().size(), 1u);
  EXPECT_THAT(sink_.why(), HasSubstr("closed its control stream"));
  EXPECT_TRUE(worker->Finish().ok());
}

TEST_F(ControlServiceTest, AWorkerMaySayWhyItLeaves) {
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  ASSERT_NE(sink_.WaitLink(), nullptr);
  ASSERT_TRUE(worker->Farewell(absl::AbortedError("its launches hang")));
  ASSERT_TRUE(sink_.WaitDetached());
  EXPECT_EQ(sink_.why(), "it left: its launches hang");
}

TEST_F(ControlServiceTest, CloseSendsWhatIsQueuedThenEndsTheCall) {
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  auto link = sink_.WaitLink();
  ASSERT_NE(link, nullptr);
  link->Send(FakeSink::Text("last"));
  link->Close("heartbeats were missed");
  std::vector<std::string> reasons;
  for (auto commands = worker->Read(); !commands.empty(); commands = worker->Read()) {
    for (const control::Command& command : commands) reasons.push_back(command.shutdown().reason());
  }
  EXPECT_THAT(reasons, ElementsAre("welcome", "last"));
  EXPECT_EQ(worker->Finish(), absl::UnavailableError("heartbeats were missed"));
  ASSERT_TRUE(sink_.WaitDetached());
  EXPECT_EQ(sink_.why(), "heartbeats were missed");
}

TEST_F(ControlServiceTest, CloseCutsOffAWorkerThatTakesNothing) {
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  auto link = sink_.WaitLink();
  ASSERT_NE(link, nullptr);
  for (int i = 0; i < 64; ++i) link->Send(FakeSink::Text(std::string(1 << 20, 'x')));
  link->Close("heartbeats were missed");
  ASSERT_TRUE(sink_.WaitDetached());
  EXPECT_EQ(sink_.why(), "heartbeats were missed");
}

// Takes bulk data apart and checks the order of chunks.
class Collector {
 public:
  void Take(const control::Data& data) {
    std::string& bytes = bytes_[data.transfer()];
    ASSERT_EQ(data.offset(), static_cast<int64_t>(bytes.size()));
    ASSERT_LE(data.bytes().size(), size_t{1} << 20);
    bytes += data.bytes();
    if (data.error().code() != 0 || static_cast<int64_t>(bytes.size()) == data.total()) ++done_;
  }
  int done() const { return done_; }
  const std::string& bytes(uint64_t transfer) { return bytes_[transfer]; }

 private:
  std::map<uint64_t, std::string> bytes_;
  int done_ = 0;
};

std::string Pattern(size_t n) {
  std::string bytes(n, '\0');
  for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<char>((i * 131) >> 3);
  return bytes;
}

TEST_F(ControlServiceTest, BulkDataGoesBesideTheCommands) {
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  ASSERT_EQ(worker->Read().size(), 1u);
  auto bulk = Connect(true);
  ASSERT_TRUE(bulk->Hello("token1"));
  auto link = sink_.WaitLink();
  ASSERT_NE(link, nullptr);
  Reader by_control(*worker), by_bulk(*bulk);
  ASSERT_TRUE(Reader::AwaitBulk(*link, by_control, by_bulk));
  const std::string large = Pattern(20'000'001);
  link->SendData(TransferId(7), absl::Cord(large));
  link->SendData(TransferId(8), absl::CancelledError("the client left"));
  link->SendData(TransferId(9), absl::Cord("tail"));
  link->Send(FakeSink::Text("a launch"));
  ASSERT_TRUE(by_bulk.Await([](const std::vector<control::Command>& commands) {
    return !commands.empty() && commands.back().data().transfer() == 9;
  }));
  ASSERT_TRUE(by_control.Await([](const std::vector<control::Command>& commands) {
    return !commands.empty() && commands.back().shutdown().reason() == "a launch";
  }));
  Collector collected;
  for (const control::Command& command : by_bulk.commands()) {
    if (command.data().transfer() < 1000) collected.Take(command.data());
  }
  EXPECT_EQ(collected.done(), 3);
  EXPECT_TRUE(collected.bytes(7) == large);
  EXPECT_EQ(collected.bytes(9), "tail");
}

TEST_F(ControlServiceTest, WithoutABulkStreamDataComesOnTheControlStream) {
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  auto link = sink_.WaitLink();
  ASSERT_NE(link, nullptr);
  const std::string large = Pattern(5'000'000);
  link->SendData(TransferId(7), absl::Cord(large));
  Collector collected;
  while (collected.done() < 1) {
    const std::vector<control::Command> commands = worker->Read();
    ASSERT_FALSE(commands.empty());
    for (const control::Command& command : commands) {
      if (command.has_data()) collected.Take(command.data());
    }
  }
  EXPECT_TRUE(collected.bytes(7) == large);
}

TEST_F(ControlServiceTest, ABulkStreamWithoutAKnownTokenIsRefused) {
  auto bulk = Connect(true);
  ASSERT_TRUE(bulk->Hello("guess"));
  EXPECT_TRUE(bulk->Read().empty());
  EXPECT_EQ(bulk->Finish().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ControlServiceTest, LosingTheBulkStreamDetaches) {
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  ASSERT_EQ(worker->Read().size(), 1u);
  auto bulk = Connect(true);
  ASSERT_TRUE(bulk->Hello("token1"));
  ASSERT_TRUE(bulk->Farewell());
  ASSERT_TRUE(sink_.WaitDetached());
  EXPECT_EQ(sink_.why(), "it closed its bulk stream");
  EXPECT_TRUE(worker->Read().empty());
  EXPECT_EQ(worker->Finish().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ControlServiceTest, AnotherProgramIsToldSo) {
  auto stranger = Connect();
  ASSERT_TRUE(net::SendAll(stranger->fd(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").ok());
  const absl::Status end = stranger->Finish();
  EXPECT_EQ(end.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(end.message()), HasSubstr("another program"));
  EXPECT_EQ(sink_.detached(), 0);
}

TEST_F(ControlServiceTest, AWorkerThatSendsNonsenseIsDetached) {
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  ASSERT_EQ(worker->Read().size(), 1u);
  ASSERT_TRUE(worker->Hello());  // once more
  ASSERT_TRUE(sink_.WaitDetached());
  EXPECT_THAT(sink_.why(), HasSubstr("a second greeting"));
}

TEST_F(ControlServiceTest, ALinkOutlivesTheService) {
  auto worker = Connect();
  ASSERT_TRUE(worker->Hello());
  auto link = sink_.WaitLink();
  ASSERT_NE(link, nullptr);
  service_.Shutdown("the head ends");
  service_.Stop(absl::ZeroDuration());
  link->Send(FakeSink::Text("late"));
  link->SendSoon(FakeSink::Text("late"));
  link->SendData(TransferId(7), absl::Cord("late"));
  link->Close("late");
  EXPECT_EQ(link->queued_bytes(), 0);
}

// Asks a service for its Unix socket; the answer's kind and payload.
std::pair<int, std::string> AskForLocal(int port, const std::string& memory) {
  const net::Socket socket = *net::Connect("127.0.0.1", port);
  EXPECT_TRUE(net::SetTimeouts(socket.fd(), kBound, kBound).ok());
  std::string question;
  net::AppendFrame(Kind(ControlFrame::kAskLocal), memory, &question);
  EXPECT_TRUE(net::SendAll(socket.fd(), question).ok());
  net::FrameReader reader(1 << 20);
  while (true) {
    const auto frame = *reader.Next();
    if (frame.has_value()) return {static_cast<int>(frame->kind), std::string(frame->payload)};
    const absl::Span<char> space = reader.Space();
    const ssize_t size = ::recv(socket.fd(), space.data(), space.size(), 0);
    if (size <= 0) return {-1, "the connection ended"};
    reader.Received(static_cast<size_t>(size));
  }
}

TEST(LocalWorkers, AreToldOfTheUnixSocketAndServedThere) {
  auto folder = SharedFolder::Create();
  if (!folder.ok()) GTEST_SKIP() << folder.status();
  FakeSink sink;
  RealTimers timers;
  ControlService service(sink, timers, DataOptions{.folder = folder->get()});
  ASSERT_TRUE(service.Listen("127.0.0.1", 0).ok());
  const auto [kind, path] = AskForLocal(service.port(), SharedFolder::Identity());
  ASSERT_EQ(kind, static_cast<int>(ControlFrame::kLocal)) << path;
  {
    Peer worker(*net::ConnectLocal(path, kBound), ControlFrame::kAttach);
    ASSERT_TRUE(worker.Hello());
    ASSERT_FALSE(worker.Read().empty());
    Peer bulk(*net::ConnectLocal(path, kBound), ControlFrame::kBulk);
    ASSERT_TRUE(bulk.Hello("token1"));
    control::Event event;
    event.mutable_reply()->set_request(7);
    ASSERT_TRUE(worker.Send(event));
    ASSERT_TRUE(sink.WaitEvents(1));
    auto link = sink.WaitLink();
    Reader by_control(worker), by_bulk(bulk);
    ASSERT_TRUE(Reader::AwaitBulk(*link, by_control, by_bulk));
    const std::string large = Pattern(20'000'001);  // more than the socket holds
    link->SendData(TransferId(7), absl::Cord(large));
    link->SendData(TransferId(9), absl::Cord("tail"));
    ASSERT_TRUE(by_bulk.Await([](const std::vector<control::Command>& commands) {
      return !commands.empty() && commands.back().data().transfer() == 9;
    }));
    Collector collected;
    for (const control::Command& command : by_bulk.commands()) {
      if (command.data().transfer() < 1000) collected.Take(command.data());
    }
    EXPECT_TRUE(collected.bytes(7) == large);
  }
  EXPECT_TRUE(sink.WaitDetached());
  EXPECT_EQ(sink.why(), "its connection was lost");
  service.Shutdown("the test is over");
  service.Stop(absl::Seconds(5));
}

TEST(LocalWorkers, OthersAreToldWhyThereIsNone) {
  auto folder = SharedFolder::Create();
  if (!folder.ok()) GTEST_SKIP() << folder.status();
  FakeSink sink;
  RealTimers timers;
  auto ask = [&](const SharedFolder* shared, const std::string& memory) {
    ControlService service(sink, timers, DataOptions{.folder = shared});
    EXPECT_TRUE(service.Listen("127.0.0.1", 0).ok());
    const auto [kind, payload] = AskForLocal(service.port(), memory);
    EXPECT_EQ(kind, static_cast<int>(ControlFrame::kNoLocal));
    service.Stop(absl::Seconds(5));
    return wire::DecodeEnd(payload);
  };
  const std::string here = SharedFolder::Identity();
  EXPECT_THAT(ask(folder->get(), "another machine's").message(), HasSubstr("no memory in common"));
  EXPECT_THAT(ask(folder->get(), "").message(), HasSubstr("no memory in common"));
  EXPECT_THAT(ask(nullptr, here).message(), HasSubstr("no memory in common"));
  ASSERT_EQ(::setenv("CAUSEWAY_LOCAL_SOCKET", "off", 1), 0);
  const absl::Status off = ask(folder->get(), here);
  ::unsetenv("CAUSEWAY_LOCAL_SOCKET");
  EXPECT_EQ(off.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(off.message(), HasSubstr("CAUSEWAY_LOCAL_SOCKET=off"));
}

TEST_F(ControlServiceTest, AfterShutdownNobodyMayAttach) {
  service_.Shutdown("the head ends");
  auto worker = Connect();
  worker->Hello();
  EXPECT_TRUE(worker->Read().empty());
  EXPECT_EQ(worker->Finish().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace causeway::controller
