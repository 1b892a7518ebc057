// Two workers' data planes in one process: every path, damage, peers that go away.
#include "causeway/worker/data_plane_service.h"

#include <gtest/gtest.h>

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

namespace causeway::worker {
namespace {

TransferId Id(uint64_t n) { return TransferId((uint64_t{1} << 48) | n); }

// One end, with what arrived at it and what it could not send.
class End {
 public:
  explicit End(int64_t damage_chunk = 0)
      : assembler_([this](TransferId id, absl::StatusOr<device::HostBytes> bytes,
                          std::vector<int64_t>) {
          absl::MutexLock lock(&mu_);
          EXPECT_TRUE(arrived_.emplace(id, std::move(bytes)).second) << "twice: " << id;
        }) {
    auto plane = DataPlane::Start(
        {.damage_chunk = damage_chunk,
         .on_chunk = [this](Chunk chunk) { return assembler_.AddFromPeer(std::move(chunk)); },
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
  // Confirmations come after arrivals.
  int64_t AwaitNumber(const std::string& name, int64_t value) {
    for (int i = 0; i < 6000; ++i) {
      const int64_t now = plane_->stats().Numbers()[name];
      if (now >= value) return now;
      absl::Notification never;
      never.WaitForNotificationWithTimeout(absl::Milliseconds(10));
    }
    return -1;
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
  static std::string Large(int seed) {
    std::string bytes((3 << 20) + 123, 'x');
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
  EXPECT_FALSE(from.Failure(Id(1)).ok());
}

}  // namespace
}  // namespace causeway::worker
