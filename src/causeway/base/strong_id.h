// Distinct integer types for identifiers, so that a worker's id cannot be passed as a device's.
#pragma once

#include <cstdint>
#include <ostream>
#include <utility>

namespace causeway {

template <class Tag, class Rep>
class StrongId {
 public:
  using rep = Rep;
  constexpr StrongId() = default;
  constexpr explicit StrongId(Rep value) : value_(value) {}
  constexpr Rep value() const { return value_; }
  friend constexpr auto operator<=>(StrongId, StrongId) = default;
  template <class H>
  friend H AbslHashValue(H h, StrongId id) {
    return H::combine(std::move(h), id.value_);
  }
  friend std::ostream& operator<<(std::ostream& os, StrongId id) { return os << id.value_; }

 private:
  Rep value_ = 0;
};

// A logical device, as clients see it; stable for the life of a cluster.
using DeviceId = StrongId<struct DeviceIdTag, int32_t>;
// A worker's place in the cluster (a logical host). A restarted worker takes its old place.
using WorkerId = StrongId<struct WorkerIdTag, int32_t>;
// One life of a worker process; grows with every registration in the cluster.
using Incarnation = StrongId<struct IncarnationTag, uint64_t>;
// One membership of the gang; collectives live and die inside one epoch.
using EpochId = StrongId<struct EpochIdTag, uint64_t>;
// Place of a multi-worker launch in the one order of launches of a cluster; starts at 1.
using LaunchSeq = StrongId<struct LaunchSeqTag, uint64_t>;
// A client's session, unique for a head's life.
using SessionId = StrongId<struct SessionIdTag, uint64_t>;
// A client-visible array in one session (named by the client below 2^48, by the server above).
using ArrayHandle = StrongId<struct ArrayHandleTag, uint64_t>;
// A loaded executable in one session.
using ExecutableHandle = StrongId<struct ExecutableHandleTag, uint64_t>;
// An awaitable of one session: execution status, deletion, readiness.
using StatusHandle = StrongId<struct StatusHandleTag, uint64_t>;
// One logical buffer in the cluster: every worker that has a part of it stores it under this id.
using BufferId = StrongId<struct BufferIdTag, uint64_t>;
// A compiled program, independent of the devices that it runs on.
using ProgramId = StrongId<struct ProgramIdTag, uint64_t>;
// A program bound to a list of devices.
using BindingId = StrongId<struct BindingIdTag, uint64_t>;
// A message with bytes on its way from one process to another.
using TransferId = StrongId<struct TransferIdTag, uint64_t>;
// A question of the controller to a worker that awaits one reply.
using RequestId = StrongId<struct RequestIdTag, uint64_t>;

}  // namespace causeway
