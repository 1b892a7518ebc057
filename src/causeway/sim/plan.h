// What one seed means: the cluster, its knobs, its clients, and the faults with their times.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "causeway/base/random.h"
#include "causeway/base/strong_id.h"
#include "causeway/model/topology.h"
#include "causeway/worker/fault_plan.h"

namespace causeway::sim {

struct Fault {
  enum class Kind {
    kKill,         // SIGKILL; peers' collective connections break
    kVanish,       // the machine is gone: peers hear nothing
    kPause,        // SIGSTOP for `lasts`
    kReplace,      // a rival process takes the place of a paused one that was given up
    kPartition,    // nothing passes between head and worker for `lasts`
    kPeerPartition,  // nothing passes between workers' data planes for `lasts`
    kSlow,         // everything on the worker takes `factor` times as long for `lasts`
    kLoseTransfer,  // the next bytes that the worker sends to another never arrive
    kTrouble,      // the next computation on the worker finds no memory, or the device fails
    kDisk,         // the disk of compiled programs is full, unreadable, damaged, ... for `lasts`
  };
  Kind kind = Kind::kKill;
  absl::Time at;
  int worker = 0;  // a place, or from num_workers() on a spare
  absl::Duration lasts;
  double factor = 1;  // of slowness; which trouble a disk has
};
const char* NameOf(Fault::Kind kind);

struct Plan {
  uint64_t seed = 0;
  model::ClusterShape shape;
  int max_inflight_launches = 8;
  int64_t inline_bytes_max = 0;
  int64_t chunk_bytes = 0;
  absl::Duration heartbeat;
  absl::Duration drain_max;
  size_t max_programs = 0;
  int spares = 0;     // processes that stand by
  bool disk = false;  // compiled programs are kept on one
  int clients = 1;
  int operations = 0;  // a client
  absl::Duration think_max;
  absl::Duration network_max;   // most of a message's delay
  absl::Duration compute_max;   // of one computation
  std::vector<std::vector<DeviceId>> lists;  // the first one: every device
  std::vector<Fault> faults;                 // by time
  std::vector<worker::FaultPlan> launch_faults;  // by worker: of its first process
  absl::Time faults_end;
  // Legal trouble that this seed makes common, by mark.
  std::set<std::string> fault_points;
  bool swaps() const;  // some worker runs two launches in the wrong order
};

// `start`: when clients begin.
Plan MakePlan(uint64_t seed, absl::Time start);

}  // namespace causeway::sim
