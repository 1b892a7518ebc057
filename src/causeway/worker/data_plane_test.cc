// Two workers' data planes in one process: every path, damage, peers that go away.
#include "causeway/worker/data_plane.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <functional>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "causeway/base/limits.h"
#include "causeway/net/sockets.h"
#include "causeway/worker/peer_frames.h"
#include "control.pb.h"

namespace causeway::worker {
namespace {

TransferId Id(uint64_t n) { return TransferId((uint64_t{1} << 48) | n); }

// At most a minute.
bool Eventually(const std::function<bool()>& holds) {
  for (int i = 0; i < 6000; ++i) {
    if (holds()) return true;
    absl::Notification never;
    never.WaitForNotificationWithTimeout(absl::Milliseconds(10));
  }
  return false;
}

// One end, with what arrived at it and what it could not send.
class End {
 public:
  explicit End(int64_t damage_chunk = 0, int lanes = 0)
      : assembler_([this](TransferId id, absl::StatusOr<device::HostBytes> bytes,
                          std::vector<int64_t>) {
          absl::MutexLock lock(&mu_);
          EXPECT_TRUE(arrived_.emplace(id, std::move(bytes)).second) << "twice: " << id;
        }) {
    auto plane = DataPlane::Start(
        {.lanes = lanes,
         .damage_chunk = damage_chunk,
         .assembler = [this]() -> TransferAssembler& { return assembler_; },
         .on_failed =
             [this](WorkerId, TransferId id, absl::Status why) {
               absl::MutexLock lock(&mu_);
               failed_.emplace(id, std::move(why));
             }});
    EXPECT_TRUE(plane.ok()) << plane.status();
    plane_ = *std::move(plane);
  }
  DataPlane& plane() { return *plane_; }
  std::string address() const { return absl::StrCat("127.0.0.1:", plane_->port()); }
  // Waits for a transfer, at most a minute.
  absl::StatusOr<device::HostBytes> Take(TransferId id) {
    absl::MutexLock lock(&mu_);
    auto here = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return arrived_.contains(id); };
    if (!mu_.AwaitWithTimeout(absl::Condition(&here), absl::Minutes(1))) {
      return absl::DeadlineExceededError("it did not come");
    }
    auto found = std::move(arrived_.at(id));
    arrived_.erase(id);
    return found;
  }
  absl::Status Failure(TransferId id) {
    absl::MutexLock lock(&mu_);
    auto here = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return failed_.contains(id); };
    if (!mu_.AwaitWithTimeout(absl::Condition(&here), absl::Minutes(1))) return absl::OkStatus();
    return failed_.at(id);
  }
  void Stop() { plane_ = nullptr; }
  // Whether what came in parts has all been put together or dropped.
  bool AwaitNothingPartial() {
    return Eventually([this] { return assembler_.num_partial() == 0; });
  }
  // Confirmations come after arrivals.
  int64_t AwaitNumber(const std::string& name, int64_t value) {
    return Eventually([&] { return plane_->stats().Numbers()[name] >= value; })
               ? plane_->stats().Numbers()[name]
               : -1;
  }

 private:
  absl::Mutex mu_;
  std::map<TransferId, absl::StatusOr<device::HostBytes>> arrived_ ABSL_GUARDED_BY(mu_);
  std::map<TransferId, absl::Status> failed_ ABSL_GUARDED_BY(mu_);
  TransferAssembler assembler_;
  std::unique_ptr<DataPlane> plane_;
};

class DataPlaneTest : public ::testing::TestWithParam<bool> {
 protected:
  // Worker 0 is `from`, worker 1 is `to`; with shared memory or as if on two machines.
  void Introduce(End& from, End& to, bool shared, bool checksums) {
    for (End* end : {&from, &to}) {
      end->plane().Configure("secret", checksums);
      end->plane().SetPeers({from.address(), to.address()},
                            {from.plane().memory(), shared ? to.plane().memory() : "elsewhere"});
    }
  }
  static std::string Text(const absl::StatusOr<device::HostBytes>& bytes) {
    if (!bytes.ok()) return bytes.status().ToString();
    return std::string((*bytes)->data(), (*bytes)->size());
  }
  static std::string Large(int seed, size_t size = (3 << 20) + 123) {
    std::string bytes(size, 'x');
    for (size_t i = 0; i < bytes.size(); i += 4096) bytes[i] = static_cast<char>(seed + i / 4096);
    return bytes;
  }
};

TEST_P(DataPlaneTest, BlocksOfAllSizesArriveOnce) {
  End from, to;
  Introduce(from, to, GetParam(), /*checksums=*/true);
  for (int i = 0; i < 300; ++i) {
    from.plane().Push(WorkerId(1), Id(i), device::HostBlock::FromString(absl::StrCat("small ", i)));
  }
  from.plane().Push(WorkerId(1), Id(1000), device::HostBlock::FromString(""));
  from.plane().Push(WorkerId(1), Id(1001), absl::InternalError("no value"));
  for (int round = 0; round < 3; ++round) {
    from.plane().Push(WorkerId(1), Id(2000 + round),
                      device::HostBlock::FromString(Large(round)));
    EXPECT_EQ(Text(to.Take(Id(2000 + round))), Large(round));
  }
  for (int i = 0; i < 300; ++i) EXPECT_EQ(Text(to.Take(Id(i))), absl::StrCat("small ", i));
  EXPECT_EQ(Text(to.Take(Id(1000))), "");
  EXPECT_EQ(to.Take(Id(1001)).status().code(), absl::StatusCode::kInternal);
  const std::string path = GetParam() ? "push_shared_memory" : "push_stream";
  EXPECT_GE(from.AwaitNumber(path + "_bytes", 3 * Large(0).size()), 3 * Large(0).size());
  EXPECT_EQ(from.plane().stats().Numbers()["push_retries"], 0);
  if (GetParam()) {
    EXPECT_EQ(from.plane().stats().Numbers()["push_shared_memory_transfers"], 3);
  }
}

TEST_P(DataPlaneTest, ADamagedChunkIsSentOnceMore) {
  End from(/*damage_chunk=*/2), to;
  Introduce(from, to, GetParam(), /*checksums=*/true);
  for (int i = 0; i < 3; ++i) {
    from.plane().Push(WorkerId(1), Id(i), device::HostBlock::FromString(Large(i)));
  }
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Text(to.Take(Id(i))), Large(i));
  EXPECT_EQ(from.AwaitNumber("push_retries", 1), 1);
  EXPECT_EQ(from.plane().stats().Numbers()["push_failures"], 0);
}

TEST_P(DataPlaneTest, DamagedSmallBlocksAreSentOnceMoreAndTheOthersOnce) {
  End from(/*damage_chunk=*/7), to;
  Introduce(from, to, GetParam(), /*checksums=*/true);
  for (int i = 0; i < 20; ++i) {
    from.plane().Push(WorkerId(1), Id(i), device::HostBlock::FromString(absl::StrCat("small ", i)));
  }
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Text(to.Take(Id(i))), absl::StrCat("small ", i));
  EXPECT_EQ(from.AwaitNumber("push_stream_transfers", 20), 20);
  EXPECT_EQ(from.plane().stats().Numbers()["push_retries"], 1);
  EXPECT_EQ(from.plane().stats().Numbers()["push_failures"], 0);
  EXPECT_TRUE(to.AwaitNothingPartial());
}

TEST_P(DataPlaneTest, BlocksThatPassByTheCachesAreWhole) {
  End from, to;
  Introduce(from, to, GetParam(), /*checksums=*/true);
  for (int round = 0; round < 2; ++round) {  // a new segment, and one that is there
    const std::string bytes = Large(round, (33 << 20) + 4097);
    from.plane().Push(WorkerId(1), Id(round), device::HostBlock::FromString(bytes));
    EXPECT_TRUE(Text(to.Take(Id(round))) == bytes) << "round " << round;
  }
  EXPECT_EQ(from.plane().stats().Numbers()["push_retries"], 0);
}

INSTANTIATE_TEST_SUITE_P(Paths, DataPlaneTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "SharedMemory" : "Stream"; });

TEST_F(DataPlaneTest, SegmentsAreUsedAgainOnceTheReceiverIsDone) {
  SegmentMaps maps;
  auto folder = SharedFolder::Create();
  ASSERT_TRUE(folder.ok()) << folder.status();
  SegmentPool pool(folder->get(), {.total_bytes = 8 << 20, .spare_bytes = 4 << 20});
  auto give = [&](char c) -> absl::StatusOr<device::HostBytes> {
    const std::string bytes(3 << 20, c);
    auto name = pool.Hand(bytes.data(), bytes.size(), "-mark");
    if (!name.ok()) return name.status();
    return maps.Open(*name, bytes.size());
  };
  auto a = give('a');
  ASSERT_TRUE(a.ok()) << a.status();
  auto b = give('b');
  ASSERT_TRUE(b.ok()) << b.status();
  // Both are in use: there is no room for a third, and nobody's bytes have changed.
  EXPECT_EQ(give('c').status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ((*a)->data()[100], 'a');
  EXPECT_EQ((*b)->data()[100], 'b');
  const char* where = (*a)->data();
  a = absl::UnknownError("released");
  auto d = give('d');
  ASSERT_TRUE(d.ok()) << d.status();
  EXPECT_EQ((*d)->data(), where) << "the same segment, mapped once";
  EXPECT_EQ((*d)->data()[100], 'd');
  EXPECT_EQ((*b)->data()[100], 'b');
  EXPECT_EQ(pool.total_bytes(), 6 << 20);
  // A receiver that is gone releases nothing by itself.
  b = absl::UnknownError("released");
  d = absl::UnknownError("released");
  const std::string bytes(3 << 20, 'e');
  ASSERT_TRUE(pool.Hand(bytes.data(), bytes.size(), "-gone").ok());
  ASSERT_TRUE(pool.Hand(bytes.data(), bytes.size(), "-gone").ok());
  EXPECT_FALSE(pool.Hand(bytes.data(), bytes.size(), "-mark").ok());
  pool.Revoke("-gone");
  EXPECT_TRUE(pool.Hand(bytes.data(), bytes.size(), "-mark").ok());
}

TEST(HostBlockTest, TheBlockThatWasFreedLastIsUsedAgainWhateverWasKeptBefore) {
  constexpr size_t kSmall = 20 << 20, kLarge = size_t{400} << 20;
  auto free_marked = [](size_t size, char mark) {
    auto block = device::HostBlock::Allocate(size);
    ASSERT_NE(block, nullptr);
    block->mutable_data()[size / 2] = mark;
  };
  std::vector<std::shared_ptr<device::HostBlock>> small;
  for (int i = 0; i < 20; ++i) small.push_back(device::HostBlock::Allocate(kSmall));
  small.clear();  // 400 MiB are kept
  free_marked(kLarge, 'l');
  EXPECT_EQ(device::HostBlock::Allocate(kLarge)->data()[kLarge / 2], 'l');
  // It leaves room for the small ones that were freed last, and for no more.
  int kept = 0;
  for (int i = 0; i < 20; ++i) free_marked(kSmall, 's');
  for (int i = 0; i < 20; ++i) {
    small.push_back(device::HostBlock::Allocate(kSmall));
    if (small.back()->data()[kSmall / 2] == 's') ++kept;
  }
  EXPECT_GE(kept, 1);
  // More than may be kept goes back at once: the next block of that size is new, that is, zeros.
  free_marked(kLarge * 2, 'x');
  EXPECT_EQ(device::HostBlock::Allocate(kLarge * 2)->data()[kLarge], '\0');
}

TEST_F(DataPlaneTest, ATransferToAPeerThatIsGoneFailsByItself) {
  End from, to, third;
  from.plane().Configure("secret", false);
  third.plane().Configure("secret", false);
  from.plane().SetPeers({from.address(), to.address(), third.address(), ""},
                        {"", "", "", ""});
  to.Stop();
  from.plane().Push(WorkerId(1), Id(1), device::HostBlock::FromString("lost"));
  from.plane().Push(WorkerId(3), Id(3), device::HostBlock::FromString("nowhere"));
  from.plane().Push(WorkerId(2), Id(2), device::HostBlock::FromString("fine"));
  EXPECT_EQ(Text(third.Take(Id(2))), "fine");
  EXPECT_EQ(from.Failure(Id(1)).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(from.Failure(Id(3)).code(), absl::StatusCode::kDataLoss);
}

TEST_F(DataPlaneTest, AStrangerIsRefused) {
  End from, to;
  Introduce(from, to, false, false);
  to.plane().Configure("another secret", false);
  from.plane().Push(WorkerId(1), Id(1), device::HostBlock::FromString("hello"));
  const absl::Status why = from.Failure(Id(1));
  EXPECT_EQ(why.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(why.message().find("token"), absl::string_view::npos) << why;
  EXPECT_NE(why.message().find("worker 1"), absl::string_view::npos) << why;
}

TEST_F(DataPlaneTest, ALargeBlockTakesSeveralConnections) {
  End from(/*damage_chunk=*/0, /*lanes=*/3), to;
  Introduce(from, to, /*shared=*/false, /*checksums=*/true);
  const size_t size = (41 << 20) + 7;
  for (int i = 0; i < 3; ++i) {
    from.plane().Push(WorkerId(1), Id(i), device::HostBlock::FromString(Large(i, size)));
    from.plane().Push(WorkerId(1), Id(10 + i), device::HostBlock::FromString("small"));
  }
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Text(to.Take(Id(10 + i))), "small");
    EXPECT_TRUE(Text(to.Take(Id(i))) == Large(i, size)) << i;
  }
  EXPECT_EQ(from.AwaitNumber("push_connections", 3), 3);
  EXPECT_EQ(from.plane().stats().Numbers()["push_retries"], 0);
  EXPECT_TRUE(to.AwaitNothingPartial());
}

// Stands between two ends and passes bytes on, until told otherwise.
class Meddler {
 public:
  // The connection number n (from 0) is cut after the sender's first cut_after[n] bytes.
  Meddler(int port, std::vector<int64_t> cut_after)
      : port_(port), cut_after_(std::move(cut_after)), listener_(*net::Listen("127.0.0.1", 0)) {
    (void)net::SetBlocking(listener_.fd(), true);
    acceptor_ = std::thread([this] {
      for (size_t n = 0;; ++n) {
        auto near = net::Accept(listener_.fd());
        if (!near.ok()) return;
        threads_.emplace_back([this, n, near = std::make_shared<net::Socket>(*std::move(near))] {
          Pass(*near, n < cut_after_.size() ? cut_after_[n] : INT64_MAX);
        });
      }
    });
  }
  ~Meddler() {
    (void)::shutdown(listener_.fd(), SHUT_RDWR);
    acceptor_.join();
    for (std::thread& t : threads_) t.join();
  }
  std::string address() const { return absl::StrCat("127.0.0.1:", net::LocalPort(listener_.fd())); }
  // While held, nothing is taken from the sender.
  void Hold(bool hold) {
    absl::MutexLock lock(&mu_);
    held_ = hold;
  }

 private:
  void Pass(net::Socket& near, int64_t cut_after) {
    auto far = net::Connect("127.0.0.1", port_);
    if (!far.ok()) return;
    std::thread back([&] {
      char buffer[4096];
      ssize_t n;
      while ((n = ::recv(far->fd(), buffer, sizeof(buffer), 0)) > 0) {
        if (!net::SendAll(near.fd(), {buffer, static_cast<size_t>(n)}).ok()) break;
      }
      (void)::shutdown(near.fd(), SHUT_RDWR);
    });
    std::string buffer(64 << 10, '\0');
    for (int64_t sum = 0; sum < cut_after;) {
      {
        absl::MutexLock lock(&mu_);
        mu_.Await(absl::Condition(
            +[](bool* held) { return !*held; }, &held_));
      }
      const ssize_t n = ::recv(near.fd(), buffer.data(), buffer.size(), 0);
      if (n <= 0) break;
      sum += n;
      if (!net::SendAll(far->fd(), {buffer.data(), static_cast<size_t>(n)}).ok()) break;
    }
    (void)::shutdown(near.fd(), SHUT_RDWR);
    (void)::shutdown(far->fd(), SHUT_RDWR);
    back.join();
  }

  const int port_;
  const std::vector<int64_t> cut_after_;
  net::Socket listener_;
  absl::Mutex mu_;
  bool held_ ABSL_GUARDED_BY(mu_) = false;
  std::thread acceptor_;
  std::vector<std::thread> threads_;
};

class MeddledTest : public DataPlaneTest {
 protected:
  void IntroduceThrough(const Meddler& meddler, End& from, End& to) {
    from.plane().Configure("secret", true);
    to.plane().Configure("secret", true);
    from.plane().SetPeers({from.address(), meddler.address()}, {"", ""});
  }
};

TEST_F(MeddledTest, AConnectionThatIsCutOnceCostsNothingButTime) {
  End from, to;
  Meddler meddler(to.plane().port(), {5 << 20});
  IntroduceThrough(meddler, from, to);
  const size_t size = 20 << 20;
  for (int i = 0; i < 3; ++i) {
    from.plane().Push(WorkerId(1), Id(i), device::HostBlock::FromString(Large(i, size)));
  }
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Text(to.Take(Id(i))) == Large(i, size)) << i;
  EXPECT_GE(from.AwaitNumber("push_retries", 1), 1);
  EXPECT_EQ(from.plane().stats().Numbers()["push_failures"], 0);
  EXPECT_TRUE(to.AwaitNothingPartial());
  from.Stop();
}

TEST_F(MeddledTest, APeerThatDiesInTheMiddleFailsThatTransferAloneAndLeavesNothing) {
  End from, to;
  Meddler meddler(to.plane().port(), {5 << 20, 3 << 20});
  IntroduceThrough(meddler, from, to);
  from.plane().Push(WorkerId(1), Id(1), device::HostBlock::FromString(Large(1, 20 << 20)));
  const absl::Status why = from.Failure(Id(1));
  EXPECT_EQ(why.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(why.message().find("worker 1"), absl::string_view::npos) << why;
  EXPECT_TRUE(to.AwaitNothingPartial());
  // The next one finds the peer again.
  from.plane().Push(WorkerId(1), Id(2), device::HostBlock::FromString(Large(2)));
  EXPECT_TRUE(Text(to.Take(Id(2))) == Large(2));
  from.Stop();
}

TEST_F(MeddledTest, ASlowReaderGetsEverything) {
  End from, to;
  Meddler meddler(to.plane().port(), {});
  IntroduceThrough(meddler, from, to);
  meddler.Hold(true);
  auto block = device::HostBlock::FromString(Large(3, 20 << 20));
  for (int i = 0; i < 3; ++i) from.plane().Push(WorkerId(1), Id(i), block);
  from.plane().Push(WorkerId(1), Id(9), device::HostBlock::FromString("small"));
  meddler.Hold(false);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Text(to.Take(Id(i))) == Large(3, 20 << 20));
  EXPECT_EQ(Text(to.Take(Id(9))), "small");
  EXPECT_EQ(from.plane().stats().Numbers()["push_retries"], 0);
  from.Stop();
}

TEST_F(DataPlaneTest, WhatIsNotConfirmedIsBounded) {
  End from;
  auto listener = *net::Listen("127.0.0.1", 0);
  (void)net::SetBlocking(listener.fd(), true);
  std::atomic<int64_t> taken{0};
  std::thread sink([&] {
    auto socket = *net::Accept(listener.fd());
    std::string buffer(1 << 20, '\0');
    ssize_t n;
    while ((n = ::recv(socket.fd(), buffer.data(), buffer.size(), 0)) > 0) taken += n;
  });
  from.plane().Configure("secret", false);
  from.plane().SetPeers({"", absl::StrCat("127.0.0.1:", net::LocalPort(listener.fd()))}, {"", ""});
  const int64_t size = 48 << 20;
  auto block = device::HostBlock::FromString(std::string(size, 'x'));
  for (int i = 0; i < 8; ++i) from.plane().Push(WorkerId(1), Id(i), block);
  // The block that fills the window goes whole, and none after it.
  const int64_t blocks = limits::kPushWindowBytes / size + 1;
  EXPECT_TRUE(Eventually([&] { return taken >= blocks * size; })) << taken;
  from.Stop();
  sink.join();
  EXPECT_LT(taken, (blocks + 1) * size);
}

// Speaks the protocol by hand.
class RawPeer {
 public:
  RawPeer(const End& to, const std::string& token)
      : socket_(*net::Connect("127.0.0.1", const_cast<End&>(to).plane().port())) {
    control::PushBatch hello;
    hello.set_token(token);
    EXPECT_TRUE(SendFrame(socket_.fd(), hello).ok());
  }
  int fd() const { return socket_.fd(); }
  // A part with as many bytes as it says, or fewer.
  absl::Status Send(uint64_t id, int64_t offset, int64_t total, const std::string& bytes) {
    control::PushBatch batch;
    control::Data* data = batch.add_data();
    data->set_transfer(Id(id).value());
    data->set_offset(offset);
    data->set_total(total);
    data->set_size(static_cast<int64_t>(bytes.size()));
    return SendFrame(fd(), batch, {{const_cast<char*>(bytes.data()), bytes.size()}});
  }
  absl::StatusOr<control::PushReply> Reply() {
    control::PushReply reply;
    auto head = source_.Next(&reply);
    if (!head.ok()) return head.status();
    return reply;
  }

 private:
  net::Socket socket_;
  FrameSource source_{socket_.fd()};
};

TEST_F(DataPlaneTest, WhatIsNoFrameEndsTheConnection) {
  End to;
  to.plane().Configure("secret", false);
  RawPeer stranger(to, "guess");
  auto reply = stranger.Reply();
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->refused().code(), static_cast<int>(absl::StatusCode::kPermissionDenied));
  EXPECT_FALSE(stranger.Reply().ok());

  for (const std::string& garbage :
       {std::string(64, '\xff'), "CWF2\xff\xff\xff\xff" + std::string(16, '\0'),
        std::string("CWF2\4\0\0\0", 8) + std::string(16, '\0') + std::string(4, '\xff'),
        std::string("CWF2\0\0\0\0\xff\xff\xff\xff", 12) + std::string(12, '\0'),
        // One whole block of 1 byte, and no body for it.
        std::string("CWF2\0\0\0\0\1\0\0\0", 12) + std::string(12 + 16, '\0') +
            std::string("\1\0\0\0\0\0\0\0", 8)}) {
    RawPeer peer(to, "secret");
    ASSERT_TRUE(net::SendAll(peer.fd(), garbage).ok());
    EXPECT_FALSE(peer.Reply().ok());
  }
  RawPeer cut(to, "secret");
  ASSERT_TRUE(cut.Send(1, 0, 1000, std::string(400, 'a')).ok());
  ASSERT_TRUE(net::SendAll(cut.fd(), absl::string_view("CWF2\4\0", 6)).ok());
  (void)::shutdown(cut.fd(), SHUT_WR);
  EXPECT_FALSE(cut.Reply().ok());
  EXPECT_TRUE(to.AwaitNothingPartial());
}

TEST_F(DataPlaneTest, WhatComesBeforeTheWelcomeWaitsForIt) {
  End to;
  RawPeer peer(to, "secret");
  ASSERT_TRUE(peer.Send(1, 0, 5, "hello").ok());
  ASSERT_TRUE(net::SetTimeouts(peer.fd(), absl::Minutes(1), absl::Milliseconds(200)).ok());
  EXPECT_EQ(peer.Reply().status().code(), absl::StatusCode::kDeadlineExceeded);  // not refused
  to.plane().Configure("secret", false);
  EXPECT_EQ(Text(to.Take(Id(1))), "hello");
}

TEST_F(DataPlaneTest, PartsThatDoNotFitAreRefusedAndTheRestArrives) {
  End to;
  to.plane().Configure("secret", false);
  RawPeer peer(to, "secret");
  auto problem = [&](uint64_t id, int64_t offset, int64_t total, const std::string& bytes) {
    EXPECT_TRUE(peer.Send(id, offset, total, bytes).ok());
    auto reply = peer.Reply();
    EXPECT_TRUE(reply.ok()) << reply.status();
    if (!reply.ok() || reply->problems_size() != 1) return absl::StatusCode::kOk;
    return static_cast<absl::StatusCode>(reply->problems(0).status().code());
  };
  EXPECT_EQ(problem(1, 10, 12, "abc"), absl::StatusCode::kDataLoss);
  EXPECT_EQ(problem(2, -1, 12, "abc"), absl::StatusCode::kDataLoss);
  EXPECT_EQ(problem(3, 0, int64_t{1} << 60, "abc"), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(problem(4, 0, -5, "abc"), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(peer.Send(5, 0, 6, "abc").ok());
  EXPECT_EQ(problem(5, 2, 6, "xyz"), absl::StatusCode::kDataLoss);
  // In any order.
  ASSERT_TRUE(peer.Send(6, 3, 6, "def").ok());
  ASSERT_TRUE(peer.Send(6, 0, 6, "abc").ok());
  auto reply = peer.Reply();
  ASSERT_TRUE(reply.ok()) << reply.status();
  ASSERT_EQ(reply->done_size(), 1);
  EXPECT_EQ(Text(to.Take(Id(6))), "abcdef");
}

TEST_F(DataPlaneTest, WholeBlocksOfOneFrameAreAnsweredInOne) {
  End to;
  to.plane().Configure("secret", false);
  RawPeer peer(to, "secret");
  std::vector<WholeBlock> wholes(3);
  for (uint64_t i = 0; i < 3; ++i) {
    wholes[i].transfer = Id(i).value();
    wholes[i].size = 5 * (i % 2);
  }
  wholes[2] = wholes[1];  // twice
  std::string bytes = "hellohello";
  ASSERT_TRUE(
      SendFrame(peer.fd(), control::PushBatch(), {{bytes.data(), bytes.size()}}, wholes).ok());
  auto reply = peer.Reply();
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->done_size(), 3);
  EXPECT_EQ(Text(to.Take(Id(0))), "");
  EXPECT_EQ(Text(to.Take(Id(1))), "hello");
}

TEST_F(DataPlaneTest, AnswersCountInWhateverOrderTheyCome) {
  End from;
  auto listener = *net::Listen("127.0.0.1", 0);
  (void)net::SetBlocking(listener.fd(), true);
  from.plane().Configure("secret", false);
  from.plane().SetPeers({"", absl::StrCat("127.0.0.1:", net::LocalPort(listener.fd()))}, {"", ""});
  const uint64_t kBlocks = 300, kRefused = 77;
  for (uint64_t i = 0; i < kBlocks; ++i) {
    from.plane().Push(WorkerId(1), Id(i), device::HostBlock::FromString(absl::StrCat("small ", i)));
  }
  auto socket = *net::Accept(listener.fd());
  FrameSource source(socket.fd());
  control::PushBatch batch;
  std::vector<WholeBlock> wholes;
  ASSERT_TRUE(source.Next(&batch).ok());
  EXPECT_EQ(batch.token(), "secret");
  std::vector<uint64_t> come;
  int attempts_of_the_refused = 0;
  while (come.size() < kBlocks) {
    auto head = source.Next(&batch, &wholes);
    ASSERT_TRUE(head.ok()) << head.status();
    std::string body(head->body_bytes, '\0');
    ASSERT_TRUE(source.Body(body.data(), body.size()).ok());
    for (const WholeBlock& whole : wholes) {
      if (TransferId(whole.transfer) != Id(kRefused)) {
        come.push_back(whole.transfer);
        continue;
      }
      EXPECT_EQ(whole.attempt, attempts_of_the_refused++);
      if (whole.attempt > 0) {
        come.push_back(whole.transfer);
        continue;
      }
      control::PushReply reply;
      control::PushProblem* problem = reply.add_problems();
      problem->set_transfer(whole.transfer);
      problem->mutable_status()->set_code(static_cast<int>(absl::StatusCode::kDataLoss));
      ASSERT_TRUE(SendFrame(socket.fd(), reply).ok());
    }
  }
  control::PushReply reply;
  for (auto it = come.rbegin(); it != come.rend(); ++it) {
    reply.add_done(*it);
    if (*it % 5 == 0) reply.add_done(*it);  // said twice
  }
  reply.add_done(Id(kBlocks).value());  // never sent
  ASSERT_TRUE(SendFrame(socket.fd(), reply).ok());
  EXPECT_EQ(from.AwaitNumber("push_stream_transfers", kBlocks), static_cast<int64_t>(kBlocks));
  EXPECT_EQ(from.plane().stats().Numbers()["push_retries"], 1);
  EXPECT_EQ(from.plane().stats().Numbers()["push_failures"], 0);
}

}  // namespace
}  // namespace causeway::worker
