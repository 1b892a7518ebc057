// Emulated hosts for a real head: bench_emulated_hosts HEAD COUNT [FIRST]
//
// Attaches COUNT workers from FIRST (0 unless told) with one device each to the head at HEAD (host:port) and serves
// until its standard input closes. Prints {"launches": N} at the end: what each host was told to
// run.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/synchronization/mutex.h"
#include "bench/emulated_hosts/emulated_host.h"

int main(int argc, char** argv) {
  int count = 0, first = 0;
  if (argc < 3 || argc > 4 || !absl::SimpleAtoi(argv[2], &count) || count < 1 ||
      (argc == 4 && (!absl::SimpleAtoi(argv[3], &first) || first < 0))) {
    std::fprintf(stderr, "usage: %s HOST:PORT COUNT [FIRST]\n", argv[0]);
    return 2;
  }
  // Distributions build Abseil with its deadlock detector on, which costs every lock a global one.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  auto loop = causeway::net::EventLoop::Start("hosts");
  std::vector<std::shared_ptr<causeway::bench::EmulatedHost>> hosts;
  for (int worker = first; loop.ok() && worker < first + count; ++worker) {
    auto host = causeway::bench::EmulatedHost::Start(**loop, argv[1], worker);
    if (!host.ok()) {
      std::fprintf(stderr, "host %d: %s\n", worker, std::string(host.status().message()).c_str());
      return 1;
    }
    hosts.push_back(*std::move(host));
  }
  char ignored[256];
  while (read(STDIN_FILENO, ignored, sizeof(ignored)) > 0) {
  }
  for (auto& host : hosts) host->Stop();
  int64_t least = INT64_MAX, most = 0;
  for (auto& host : hosts) {
    host->Wait();
    least = std::min(least, host->launches());
    most = std::max(most, host->launches());
  }
  if (least != most) {
    std::fprintf(stderr, "one host was told to run %lld programs, another %lld\n",
                 static_cast<long long>(least), static_cast<long long>(most));
    return 1;
  }
  std::printf("{\"launches\": %lld}\n", static_cast<long long>(least));
  return 0;
}
