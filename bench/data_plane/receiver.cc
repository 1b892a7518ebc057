// Orders in, bytes in, answers out.
#include "bench/data_plane/receiver.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "causeway/base/check.h"
#include "causeway/device/host_bytes.h"
#include "causeway/net/sockets.h"
#include "causeway/worker/data_plane.h"

namespace causeway::bench {
namespace {

constexpr int64_t kStampEvery = 4096;
// What a process keeps of freed blocks (device/host_bytes.cc), to be taken away before blocks are
// to lie in new memory.
constexpr int64_t kSparesMax = int64_t{512} << 20;

class Receiver {
 public:
  Receiver(int fd, int lanes, int64_t bytes_max)
      : fd_(fd),
        pattern_(bytes_max),
        warm_(bytes_max),
        assembler_([this](auto id, auto bytes, auto) { Arrived(id, std::move(bytes)); }) {
    std::memset(warm_.data(), 1, static_cast<size_t>(bytes_max));
    auto plane = worker::DataPlane::Start(
        {.assembler = [this]() -> worker::TransferAssembler& { return assembler_; },
         .on_failed = [](WorkerId, TransferId, absl::Status why) { CHECK(false) << why; }});
    CHECK(plane.ok()) << plane.status();
    plane_ = *std::move(plane);
    plane_->Configure("benchmark", false);
    auto listener = net::Listen("127.0.0.1", 0);
    CHECK(listener.ok()) << listener.status();
    Answer hello;
    hello.plane_port = plane_->port();
    hello.raw_port = net::LocalPort(listener->fd());
    CHECK_LT(plane_->memory().size(), sizeof hello.memory);
    std::copy(plane_->memory().begin(), plane_->memory().end(), hello.memory);
    Put(fd_, &hello, sizeof hello);
    for (int lane = 0; lane < lanes; ++lane) {
      pollfd wait{listener->fd(), POLLIN, 0};
      CHECK(::poll(&wait, 1, 10'000) == 1) << "the sender did not connect within 10 seconds";
      auto socket = net::Accept(listener->fd());
      CHECK(socket.ok()) << socket.status();
      lanes_.push_back(*std::move(socket));
    }
  }

  void Serve() {
    Order order;
    while (::recv(fd_, &order, sizeof order, MSG_WAITALL) == sizeof order) {
      if (order.kind == Order::Kind::kDrop) {
        kept_.clear();
        raw_kept_.clear();
        Say(true);
      } else if (order.kind == Order::Kind::kRaw) {
        ServeRaw(order);
      } else {
        ServePlane(order);
      }
    }
  }

 private:
  void Say(bool right) {
    Answer answer;
    answer.cpu_us = ProcessMicroseconds();
    answer.right = right;
    Put(fd_, &answer, sizeof answer);
  }

  void Arrived(TransferId id, absl::StatusOr<device::HostBytes> bytes) {
    CHECK(bytes.ok()) << bytes.status();
    absl::MutexLock lock(&mu_);
    const uint64_t index = id.value() - first_;
    CHECK_LT(index, arrived_.size());
    CHECK(arrived_[index] == nullptr) << "twice: " << id;
    arrived_[index] = *std::move(bytes);
    if (--missing_ > 0) return;
    Say(true);
    all_here_->Notify();
  }

  void ServePlane(const Order& order) {
    absl::Notification all_here;
    std::vector<std::shared_ptr<device::HostBlock>> spares;
    if (order.new_memory) {
      for (int64_t taken = 0; taken <= kSparesMax; taken += order.bytes) {
        spares.push_back(device::HostBlock::Allocate(static_cast<size_t>(order.bytes)));
      }
    }
    {
      absl::MutexLock lock(&mu_);
      first_ = order.first_transfer;
      missing_ = order.blocks;
      arrived_.assign(static_cast<size_t>(order.blocks), nullptr);
      all_here_ = &all_here;
    }
    Say(true);
    all_here.WaitForNotification();
    std::vector<device::HostBytes> arrived;
    {
      absl::MutexLock lock(&mu_);
      arrived.swap(arrived_);
    }
    const char* at = Expected(order);
    bool right = true;
    for (const device::HostBytes& block : arrived) {
      right = right && static_cast<int64_t>(block->size()) == order.bytes &&
              std::memcmp(block->data(), at, block->size()) == 0;
      at += order.bytes;
    }
    if (order.new_memory) kept_.insert(kept_.end(), arrived.begin(), arrived.end());
    arrived.clear();
    Say(right);
  }

  void ServeRaw(const Order& order) {
    char* to = warm_.data();
    if (order.new_memory) {
      raw_kept_.emplace_back(static_cast<char*>(std::malloc(static_cast<size_t>(order.bytes))),
                             &std::free);
      to = raw_kept_.back().get();
    }
    Say(true);
    const auto lanes = static_cast<int64_t>(lanes_.size());
    auto receive = [&](int64_t lane) {
      const int64_t begin = order.bytes * lane / lanes, end = order.bytes * (lane + 1) / lanes;
      const absl::Status got = net::ReceiveAll(lanes_[static_cast<size_t>(lane)].fd(), to + begin,
                                               static_cast<size_t>(end - begin));
      CHECK(got.ok()) << got;
    };
    std::vector<std::thread> others;
    for (int64_t lane = 1; lane < lanes; ++lane) others.emplace_back(receive, lane);
    receive(0);
    for (std::thread& other : others) other.join();
    Say(true);
    Say(std::memcmp(to, Expected(order), static_cast<size_t>(order.bytes)) == 0);
  }

  const char* Expected(const Order& order) {
    pattern_.Stamp(order.bytes * order.blocks, order.stamp);
    return pattern_.data();
  }

  const int fd_;
  Pattern pattern_;
  Pattern warm_;
  std::vector<net::Socket> lanes_;
  std::vector<device::HostBytes> kept_;
  std::vector<std::unique_ptr<char, void (*)(void*)>> raw_kept_;
  absl::Mutex mu_;
  uint64_t first_ = 0;
  int missing_ = 0;
  std::vector<device::HostBytes> arrived_;
  absl::Notification* all_here_ = nullptr;
  worker::TransferAssembler assembler_;
  std::unique_ptr<worker::DataPlane> plane_;  // last: it uses the rest
};

}  // namespace

Pattern::Pattern(int64_t bytes) : bytes_(bytes) {
  // Huge pages, as the blocks of a worker.
  void* const memory = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  (void)::madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  data_ = static_cast<char*>(memory);
  uint64_t state = 1;
  for (int64_t at = 0; at + 8 <= bytes; at += 8) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    std::memcpy(data_ + at, &state, sizeof state);
  }
}

Pattern::~Pattern() { (void)::munmap(data_, static_cast<size_t>(bytes_)); }

void Pattern::Stamp(int64_t bytes, uint64_t stamp) {
  CHECK_LE(bytes, bytes_);
  for (int64_t at = 0; at + 8 <= bytes; at += std::min(kStampEvery, bytes)) {
    std::memcpy(data_ + at, &stamp, sizeof stamp);
  }
}

double ProcessMicroseconds() {
  rusage used;
  CHECK(::getrusage(RUSAGE_SELF, &used) == 0);
  auto us = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_usec);
  };
  return us(used.ru_utime) + us(used.ru_stime);
}

void Put(int fd, const void* from, size_t size) {
  const absl::Status sent =
      net::SendAll(fd, absl::string_view(static_cast<const char*>(from), size));
  CHECK(sent.ok()) << "the other process of the benchmark is gone: " << sent;
}

void Get(int fd, void* to, size_t size) {
  const absl::Status received = net::ReceiveAll(fd, to, size);
  CHECK(received.ok()) << "the other process of the benchmark is gone: " << received;
}

void Receive(int fd, int lanes, int64_t bytes_max) { Receiver(fd, lanes, bytes_max).Serve(); }

}  // namespace causeway::bench
