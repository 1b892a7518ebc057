// Runs simulations: many seeds for failures, or one seed with its trace.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <iostream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/synchronization/mutex.h"
#include "causeway/base/probes.h"
#include "causeway/sim/simulation.h"

ABSL_FLAG(uint64_t, seed, 0, "run this seed alone and print its trace");
ABSL_FLAG(uint64_t, seeds, 100, "how many seeds to run");
ABSL_FLAG(uint64_t, first, 1, "the first of them");
ABSL_FLAG(int, jobs, 1, "threads");
ABSL_FLAG(bool, marks, false, "say which marks were reached and which never");
ABSL_FLAG(std::vector<std::string>, plant, {}, "bugs to switch on, by mark");

namespace causeway {
namespace {

sim::Options OptionsFor(uint64_t seed) {
  const std::vector<std::string> plant = absl::GetFlag(FLAGS_plant);
  return {.seed = seed, .planted = {plant.begin(), plant.end()}};
}

int RunOne(uint64_t seed) {
  sim::Options options = OptionsFor(seed);
  options.trace = true;
  const sim::Result result = sim::Simulate(options);
  std::cout << result.trace;
  for (const std::string& violation : result.violations) {
    std::cout << "violation: " << violation << "\n";
  }
  std::cout << "seed " << seed << ": " << (result.violations.empty() ? "holds" : "FAILS") << "\n";
  return result.violations.empty() ? 0 : 1;
}

struct Totals {
  absl::Mutex mu;
  std::set<std::string> reached ABSL_GUARDED_BY(mu);
  std::vector<uint64_t> failed ABSL_GUARDED_BY(mu);
  int64_t values ABSL_GUARDED_BY(mu) = 0, errors ABSL_GUARDED_BY(mu) = 0;
};

void RunSeed(uint64_t seed, Totals& totals) {
  sim::Result result = sim::Simulate(OptionsFor(seed));
  absl::MutexLock lock(&totals.mu);
  totals.reached.merge(result.reached);
  totals.values += result.values_checked;
  totals.errors += result.errors_seen;
  if (result.violations.empty()) return;
  totals.failed.push_back(seed);
  std::cout << "seed " << seed << " FAILS: " << result.violations[0] << std::endl;
}

int RunMany(uint64_t first, uint64_t count, int jobs) {
  Totals totals;
  std::atomic<uint64_t> next{first};
  std::vector<std::thread> threads;
  for (int j = 0; j < jobs; ++j) {
    threads.emplace_back([&] {
      for (uint64_t seed = next++; seed < first + count; seed = next++) RunSeed(seed, totals);
    });
  }
  for (std::thread& thread : threads) thread.join();
  absl::MutexLock lock(&totals.mu);
  std::cout << count << " seeds from " << first << ": " << totals.failed.size() << " fail; "
            << totals.values << " values were read and checked, " << totals.errors
            << " errors had a cause\n";
  if (absl::GetFlag(FLAGS_marks)) {
    for (const std::string& mark : ReachedMarks()) {
      std::cout << (totals.reached.contains(mark) ? "reached  " : "NEVER    ") << mark << "\n";
    }
  }
  return totals.failed.empty() ? 0 : 1;
}

}  // namespace
}  // namespace causeway

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("simulates clusters under faults; see src/causeway/sim/README.md");
  absl::ParseCommandLine(argc, argv);
  const uint64_t seed = absl::GetFlag(FLAGS_seed);
  if (seed != 0) return causeway::RunOne(seed);
  return causeway::RunMany(absl::GetFlag(FLAGS_first), absl::GetFlag(FLAGS_seeds),
                           std::max(1, absl::GetFlag(FLAGS_jobs)));
}
