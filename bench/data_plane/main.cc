// What the data plane between workers takes for a transfer, beside memcpy and plain TCP streams.
//
//   bench_data_plane [--quick] [--rounds N] [--lanes N] [--case NAME]
//
// Two processes, a real data plane in each, and no cluster around them. The systems take turns in
// every round: a copy within one process, plain send() and recv() over as many streams as the data
// plane has, and the data plane through shared memory and over TCP, with and without checksums. All
// bytes are compared after they were timed. Prints one JSON object a line: round, case, system, and
// microseconds (median and worst of the round) of time and of both processes' processor time.
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "causeway/base/check.h"
#include "causeway/device/host_bytes.h"
#include "causeway/net/sockets.h"
#include "causeway/worker/data_plane.h"
#include "bench/data_plane/receiver.h"

namespace causeway::bench {
namespace {

constexpr int64_t kKiB = 1 << 10, kMiB = 1 << 20;

struct Case {
  std::string name;
  int blocks = 1;
  int64_t bytes = 0;  // of each
  bool new_memory = false;
};

struct System {
  std::string name;
  enum class Kind { kCopy, kRaw, kPlane } kind;
  bool shared = false, checksums = false;
};

struct Sample {
  double us = 0, cpu_us = 0;
};

double Micros(absl::Duration d) { return absl::ToDoubleMicroseconds(d); }

// One data plane that sends to the receiver.
class Sender {
 public:
  Sender(const System& system, const Answer& hello, int lanes)
      : assembler_([](TransferId, auto, auto) {}) {
    auto plane = worker::DataPlane::Start(
        {.lanes = lanes,
         .assembler = [this]() -> worker::TransferAssembler& { return assembler_; },
         .on_failed = [](WorkerId, TransferId, absl::Status why) { CHECK(false) << why; }});
    CHECK(plane.ok()) << plane.status();
    plane_ = *std::move(plane);
    plane_->Configure("benchmark", system.checksums);
    plane_->SetPeers({absl::StrCat("127.0.0.1:", plane_->port()),
                      absl::StrCat("127.0.0.1:", hello.plane_port)},
                     {plane_->memory(), system.shared ? hello.memory : "another machine"});
  }
  worker::DataPlane& plane() { return *plane_; }

 private:
  worker::TransferAssembler assembler_;
  std::unique_ptr<worker::DataPlane> plane_;
};

class Bench {
 public:
  Bench(int fd, int lanes, int64_t bytes_max)
      : fd_(fd), lanes_(lanes), pattern_(bytes_max), warm_(bytes_max) {
    Get(fd_, &hello_, sizeof hello_);
    for (int lane = 0; lane < lanes; ++lane) {
      auto socket = net::Connect("127.0.0.1", hello_.raw_port, absl::Seconds(10));
      CHECK(socket.ok()) << socket.status();
      streams_.push_back(*std::move(socket));
    }
  }

  // Whether both processes can hand each other memory here.
  bool can_share() const { return hello_.memory[0] != '\0'; }

  // `times` samples of one case; the first one is not counted.
  std::vector<Sample> Measure(const Case& c, const System& system, int times) {
    if (c.new_memory && system.kind == System::Kind::kPlane) {
      // Its own memory has to be new, too.
      Sender fresh(system, hello_, lanes_);
      (void)Plane(fresh, {"", 1, kKiB, false});
      std::vector<Sample> samples;
      for (int i = 0; i < times; ++i) samples.push_back(Plane(fresh, c));
      Drop();
      return samples;
    }
    std::vector<Sample> samples;
    for (int i = 0; i <= times; ++i) {
      const Sample sample = system.kind == System::Kind::kCopy  ? Copy(c)
                            : system.kind == System::Kind::kRaw ? Raw(c)
                                                                : Plane(SenderOf(system), c);
      if (i > 0) samples.push_back(sample);
    }
    if (c.new_memory && system.kind == System::Kind::kRaw) Drop();
    return samples;
  }

 private:
  Sender& SenderOf(const System& system) {
    std::unique_ptr<Sender>& sender = senders_[system.shared][system.checksums];
    if (sender == nullptr) sender = std::make_unique<Sender>(system, hello_, lanes_);
    return *sender;
  }

  Answer Await() {
    Answer answer;
    Get(fd_, &answer, sizeof answer);
    return answer;
  }

  void Drop() {
    const Order order{.kind = Order::Kind::kDrop};
    Put(fd_, &order, sizeof order);
    (void)Await();
  }

  template <typename Send>
  Sample Exchange(Order order, Send send) {
    order.stamp = ++stamp_;
    pattern_.Stamp(order.bytes * order.blocks, order.stamp);
    Put(fd_, &order, sizeof order);
    const double cpu = Await().cpu_us;
    const double own_cpu = ProcessMicroseconds();
    const absl::Time begin = absl::Now();
    send();
    const Answer here = Await();
    const Sample sample{Micros(absl::Now() - begin),
                        here.cpu_us - cpu + ProcessMicroseconds() - own_cpu};
    CHECK(Await().right) << "the bytes that arrived are not those that were sent";
    return sample;
  }

  Sample Plane(Sender& sender, const Case& c) {
    const uint64_t first = next_transfer_;
    next_transfer_ += static_cast<uint64_t>(c.blocks);
    return Exchange({.kind = Order::Kind::kPlane, .blocks = c.blocks, .bytes = c.bytes,
                     .first_transfer = first, .new_memory = c.new_memory},
                    [&] {
                      for (int i = 0; i < c.blocks; ++i) {
                        sender.plane().Push(
                            WorkerId(1), TransferId(first + static_cast<uint64_t>(i)),
                            device::HostBlock::Borrow(pattern_.data() + i * c.bytes,
                                                      static_cast<size_t>(c.bytes), nullptr));
                      }
                    });
  }

  Sample Raw(const Case& c) {
    const int64_t bytes = c.bytes * c.blocks;
    return Exchange(
        {.kind = Order::Kind::kRaw, .bytes = bytes, .new_memory = c.new_memory}, [&] {
          auto send = [&](int64_t lane) {
            const int64_t begin = bytes * lane / lanes_, end = bytes * (lane + 1) / lanes_;
            const absl::Status sent = net::SendAll(
                streams_[static_cast<size_t>(lane)].fd(),
                absl::string_view(pattern_.data() + begin, static_cast<size_t>(end - begin)));
            CHECK(sent.ok()) << sent;
          };
          std::vector<std::thread> others;
          for (int lane = 1; lane < lanes_; ++lane) others.emplace_back(send, lane);
          send(0);
          for (std::thread& other : others) other.join();
        });
  }

  Sample Copy(const Case& c) {
    const auto bytes = static_cast<size_t>(c.bytes * c.blocks);
    pattern_.Stamp(c.bytes * c.blocks, ++stamp_);
    std::unique_ptr<char, void (*)(void*)> fresh(
        c.new_memory ? static_cast<char*>(std::malloc(bytes)) : nullptr, &std::free);
    char* const to = c.new_memory ? fresh.get() : warm_.data();
    const double cpu = ProcessMicroseconds();
    const absl::Time begin = absl::Now();
    std::memcpy(to, pattern_.data(), bytes);
    const Sample sample{Micros(absl::Now() - begin), ProcessMicroseconds() - cpu};
    CHECK(std::memcmp(to, pattern_.data(), bytes) == 0);
    return sample;
  }

  const int fd_;
  const int lanes_;
  Answer hello_;
  Pattern pattern_;
  Pattern warm_;
  std::vector<net::Socket> streams_;
  std::unique_ptr<Sender> senders_[2][2];
  uint64_t next_transfer_ = (uint64_t{1} << 48) | 1;
  uint64_t stamp_ = 0;
};

std::vector<Case> Cases(bool quick, const std::string& only) {
  std::vector<Case> cases = {{"256 pieces of 1 KiB", 256, kKiB}, {"256 KiB", 1, 256 * kKiB}};
  const std::vector<int64_t> sizes =
      quick ? std::vector<int64_t>{1, 8} : std::vector<int64_t>{1, 4, 16, 32, 64, 256};
  for (int64_t size : sizes) cases.push_back({absl::StrCat(size, " MiB"), 1, size * kMiB});
  for (int64_t size : quick ? std::vector<int64_t>{8} : std::vector<int64_t>{32, 256}) {
    cases.push_back({absl::StrCat(size, " MiB, new memory"), 1, size * kMiB, true});
  }
  if (!only.empty()) std::erase_if(cases, [&](const Case& c) { return c.name != only; });
  return cases;
}

void Run(int fd, bool quick, int rounds, int lanes, int64_t bytes_max, const std::string& only) {
  Bench bench(fd, lanes, bytes_max);
  std::vector<System> systems = {{"memcpy", System::Kind::kCopy},
                                 {"shared memory", System::Kind::kPlane, true, false},
                                 {"shared memory, checksums", System::Kind::kPlane, true, true},
                                 {"raw TCP", System::Kind::kRaw},
                                 {"TCP", System::Kind::kPlane, false, false},
                                 {"TCP, checksums", System::Kind::kPlane, false, true}};
  if (!bench.can_share()) std::erase_if(systems, [](const System& s) { return s.shared; });
  for (int round = 0; round < rounds; ++round) {
    for (const Case& c : Cases(quick, only)) {
      const int times = quick ? 2 : c.bytes >= 32 * kMiB ? 3 : c.bytes >= kMiB ? 10 : 50;
      for (size_t i = 0; i < systems.size(); ++i) {
        const System& system = systems[round % 2 == 0 ? i : systems.size() - 1 - i];
        std::vector<Sample> samples = bench.Measure(c, system, times);
        double cpu = 0;
        for (const Sample& s : samples) cpu += s.cpu_us / static_cast<double>(samples.size());
        std::sort(samples.begin(), samples.end(),
                  [](const Sample& a, const Sample& b) { return a.us < b.us; });
        std::printf("{\"round\": %d, \"case\": \"%s\", \"system\": \"%s\", \"p50\": %.1f, "
                    "\"max\": %.1f, \"cpu_us\": %.1f}\n",
                    round, c.name.c_str(), system.name.c_str(), samples[samples.size() / 2].us,
                    samples.back().us, cpu);
        std::fflush(stdout);
      }
    }
  }
}

}  // namespace
}  // namespace causeway::bench

int main(int argc, char** argv) {
  bool quick = false;
  int rounds = 1;
  std::string only;  // "": all cases
  // As many as a worker uses on this machine.
  int lanes = std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 2, 1, 4);
  for (int i = 1; i < argc; ++i) {
    const absl::string_view arg = argv[i];
    const bool more = i + 1 < argc;
    if (arg == "--quick") {
      quick = true;
    } else if (arg == "--case" && more) {
      only = argv[++i];
    } else if (!(arg == "--rounds" && more && absl::SimpleAtoi(argv[++i], &rounds) && rounds > 0) &&
               !(arg == "--lanes" && more && absl::SimpleAtoi(argv[++i], &lanes) && lanes > 0)) {
      std::fprintf(stderr, "usage: %s [--quick] [--rounds N] [--lanes N] [--case NAME]\n",
                   argv[0]);
      return 2;
    }
  }
  // Distributions build Abseil with its deadlock detector on, which costs every lock a global one.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  const int64_t bytes_max = int64_t{quick ? 8 : 256} << 20;
  int ends[2];
  CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  const pid_t child = ::fork();  // before there are threads
  CHECK(child >= 0);
  if (child == 0) {
    ::close(ends[0]);
    causeway::bench::Receive(ends[1], lanes, bytes_max);
    return 0;
  }
  ::close(ends[1]);
  causeway::bench::Run(ends[0], quick, rounds, lanes, bytes_max, only);
  ::close(ends[0]);
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child && status == 0) << "the receiver ended badly";
  return 0;
}
