// Programs that run in host memory instead of XLA: a user's own Python, and what reads or writes files.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "causeway/device/types.h"

namespace causeway::device {

// This worker's shards of one argument or result.
struct HostPart {
  int32_t device = 0;  // logical
  HostShard shard;
};
using HostValue = std::vector<HostPart>;

struct HostProgramSpec {
  std::shared_ptr<const ProgramSource> source;
  std::vector<int32_t> devices;  // logical, execution order, of all workers
  int worker = 0;
  int num_workers = 1;
  int devices_per_host = 1;
};

// Thread safety: Run may be called from several threads at once. Run and the destructor may take as
// long as the user's code likes.
class HostProgram {
 public:
  virtual ~HostProgram() = default;
  // A user's own error is never DATA_LOSS, INTERNAL, NOT_FOUND or DEADLINE_EXCEEDED.
  virtual absl::StatusOr<std::vector<HostValue>> Run(const std::vector<HostValue>& args) = 0;
};

}  // namespace causeway::device
