// What operations may see of a cluster: plain values, and the door through which they are read.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "causeway/base/strong_id.h"
#include "causeway/core/event_log.h"
#include "causeway/model/topology.h"

namespace causeway::core {

struct WorkerStatus {
  WorkerId id;
  int slice = 0;
  bool alive = false;
  // One word: "waiting" (never joined), "joining", "alive", "lost".
  std::string state;
  std::string why;  // of a state that is not "alive"
  int pid = 0;      // 0 until it has joined once
  std::string host;
  std::string data_address;
  std::string platform;
  std::string device_kind;
  std::string runtime_version;
  Incarnation incarnation;
  int node = 0;  // coordination node id in this epoch; 0 = not a member
  absl::Duration last_heard_age = absl::InfiniteDuration();
  int64_t queued_bytes = 0;
  int64_t unconfirmed_launches = 0;
  std::map<std::string, int64_t> stats;  // what the worker says of itself
  // CLASS_PATH_(transfers|bytes|microseconds), CLASS_fallbacks and the like; only grow.
  std::map<std::string, int64_t> transfers;
  std::string transfer_fallback;  // why a faster path was left last; "" = never
  std::string memory;             // workers of the same text share memory; "" = none
};

struct SessionStatus {
  SessionId id;
  std::string peer;
  absl::Duration age;
  int64_t arrays = 0;
  int64_t buffers = 0;
  int64_t bytes = 0;
  int64_t executables = 0;
};

// The compiled programs on disk.
struct CompileCacheStatus {
  std::string directory;  // empty: there is no such cache
  int64_t max_bytes = 0;
  int64_t files = 0;
  int64_t bytes = 0;
  // Only grow.
  int64_t hits = 0;
  int64_t misses = 0;
  int64_t stored = 0;
  int64_t evicted = 0;  // to keep within max_bytes
  int64_t dropped = 0;  // damaged
  int64_t errors = 0;   // of the disk
  std::string last_error;
};

// The newest change of epoch after a failure, phase by phase. Durations are the slowest worker's.
struct RecoveryStatus {
  EpochId epoch;  // the one that it led to; 0 = there was none yet
  std::string cause;
  absl::Time begun;         // wall: the head knew
  absl::Duration drain;     // until nothing of the old epoch was in flight
  absl::Duration client;    // a new XLA client
  absl::Duration adopt;     // live buffers taken over by it
  absl::Duration opened;    // from `begun` until all workers that are left were in the epoch
  absl::Duration launched;  // from `begun` until they had confirmed a launch; 0 = not yet
};

struct ClusterStatus {
  model::ClusterShape shape;
  // Every worker has joined and is in the current epoch.
  bool complete = false;
  EpochId epoch;
  std::vector<model::Device> devices;
  std::vector<WorkerStatus> workers;  // by id
  std::vector<SessionStatus> sessions;
  std::map<std::string, int64_t> counters;  // only grow
  std::map<std::string, int64_t> gauges;
  CompileCacheStatus compile_cache;
  RecoveryStatus recovery;
};

// Implemented by the controller. Thread-safe; neither call blocks.
class StatusSource {
 public:
  virtual ~StatusSource() = default;
  virtual ClusterStatus GetStatus() = 0;
  // What befell the slices; lives as long as the source.
  virtual EventLog& events() = 0;
};

}  // namespace causeway::core
