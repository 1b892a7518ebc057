// Faults that tests ask a worker for, by CAUSEWAY_FAULTS; none in normal use.
//
// "skip_launch=5,swap_launch=9,oom_launch=12": the 5th multi-worker launch here is lost as if XLA
// had dropped it, the 9th trades places with the 10th, the 12th runs out of memory. "damage_chunk=3":
// the 3rd chunk for another worker is damaged on its way, where transfers bear checksums.
// "period=100": after every 100 multi-worker launches the count begins anew, and so do the faults.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace causeway::worker {

struct FaultPlan {
  int64_t skip_launch = 0;  // 0 = never
  int64_t swap_launch = 0;
  int64_t oom_launch = 0;
  int64_t damage_chunk = 0;
  int64_t period = 0;  // 0 = each fault once
};

// INVALID_ARGUMENT names what is not understood.
absl::StatusOr<FaultPlan> ParseFaultPlan(absl::string_view text);

}  // namespace causeway::worker
