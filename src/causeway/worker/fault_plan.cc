// Parsing of CAUSEWAY_FAULTS.
#include "causeway/worker/fault_plan.h"

#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace causeway::worker {

absl::StatusOr<FaultPlan> ParseFaultPlan(absl::string_view text) {
  FaultPlan plan;
  for (absl::string_view item : absl::StrSplit(text, ',', absl::SkipWhitespace())) {
    const std::pair<absl::string_view, absl::string_view> kv = absl::StrSplit(item, '=');
    int64_t* field = kv.first == "skip_launch"   ? &plan.skip_launch
                     : kv.first == "swap_launch" ? &plan.swap_launch
                     : kv.first == "oom_launch"  ? &plan.oom_launch
                     : kv.first == "damage_chunk" ? &plan.damage_chunk
                     : kv.first == "period"       ? &plan.period
                                                  : nullptr;
    if (field == nullptr || !absl::SimpleAtoi(kv.second, field) || *field < 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "CAUSEWAY_FAULTS has '", std::string(item),
          "'; use skip_launch=N, swap_launch=N, oom_launch=N, damage_chunk=N or period=N with N "
          "from 1"));
    }
  }
  return plan;
}

}  // namespace causeway::worker
