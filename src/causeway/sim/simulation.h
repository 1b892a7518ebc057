// One whole simulation: a cluster, its clients and its faults from one seed, and the verdict.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace causeway::sim {

struct Options {
  uint64_t seed = 1;
  bool trace = false;
  std::set<std::string> planted;  // bugs to switch on, by mark
};

struct Result {
  std::vector<std::string> violations;  // empty: every check held
  std::string trace;                    // the same bytes for the same options
  std::set<std::string> reached;
  int64_t steps = 0, values_checked = 0, errors_seen = 0;
};

// Thread safety: thread-safe; several may run at once on threads of their own.
Result Simulate(const Options& options);

}  // namespace causeway::sim
