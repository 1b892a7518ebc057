// The nodes of a worker's graph: values that exist or will, operations that wait, launches.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "causeway/base/strong_id.h"
#include "causeway/device/types.h"

namespace causeway::worker {

struct Operation;
using OperationRef = std::shared_ptr<Operation>;
struct LaunchRecord;

// A buffer's local part, or the bytes of a transfer: pending, there, or in error for good.
struct Value {
  enum class State { kPending, kReady, kError };
  State state = State::kPending;
  absl::Status error;
  device::ArrayRef array;            // buffers
  EpochId epoch;                     // of the device client that `array` belongs to
  device::HostBytes bytes;           // transfers
  std::vector<int64_t> byte_strides;  // transfers; empty = dense
  // The latest multi-worker launch whose failure would be this value's too.
  LaunchSeq after;
  std::shared_ptr<LaunchRecord> producer;  // null unless a launch made it
  std::vector<OperationRef> waiters;       // to be told when it is no longer pending
  std::vector<OperationRef> readers;       // parked operations that will read it
  std::vector<TransferId> awaits;  // buffers that are built: transfers that had not come by then
  absl::Time deadline = absl::InfiniteFuture();  // transfers: given up then
  bool claimed = false;                          // transfers: a Build wants it

  bool pending() const { return state == State::kPending; }
};
using ValueRef = std::shared_ptr<Value>;

// A command that waits for values. Runs once, when nothing stands before it any more.
struct Operation {
  int blockers = 0;
  bool done = false;
  absl::AnyInvocable<void()> run;
  std::vector<OperationRef> successors;  // launches that may take over what this one still reads
};

// One launch that was given to the device. Shared with the watcher of completions.
struct LaunchRecord {
  EpochId epoch;
  LaunchSeq seq;                       // 0 = this worker only
  std::vector<int> ordinals;           // local devices that it occupies
  std::shared_ptr<const device::ProgramSource> program;
  absl::Time issued;
  std::vector<std::weak_ptr<Value>> outputs;
  // The outputs' arrays, where nobody may use them before the launch has ended; else empty.
  std::vector<device::ArrayRef> held;
  std::unique_ptr<device::Completion> completion;
  // Only the graph's thread touches the rest.
  bool done = false;
  absl::Status status;
  std::vector<absl::AnyInvocable<void(const absl::Status&)>> waiters;
};

}  // namespace causeway::worker
