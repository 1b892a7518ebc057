// Node ids for the workers' XLA clients, and the topology that names them all in advance.
//
// XLA's own service collects every process's devices before anyone may start. Here the head knows
// the cluster's shape and writes the answer itself: it lists every node that may ever live, so no
// worker waits for another and membership can change. Node 0 is nobody (XLA gives node 0 the duty of
// collecting); worker w owns nodes 1 + w * lives .. (w + 1) * lives, one for each of its lives.
#pragma once

#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "causeway/base/limits.h"
#include "causeway/base/strong_id.h"
#include "causeway/model/topology.h"

namespace causeway::coordination {

struct TopologyOptions {
  model::ClusterShape shape;
  int incarnations_per_worker = limits::kIncarnationsPerWorker;

  int num_nodes() const { return 1 + shape.num_workers() * incarnations_per_worker; }
};

// The id that XLA gives to a node's device.
inline int GlobalDeviceId(int node, int ordinal) {
  return node * limits::kDevicesPerNodeMax + ordinal;
}

// The nodes whose collectives meet under this key, such as "cpu:gloo/8192,10240/0", which holds
// device ids; none for any other key.
std::vector<int> NodesMeetingAt(absl::string_view key);

// "cpu:global_topology/cpu": jaxlib prefixes a client's keys with its platform.
std::string GlobalTopologyKey(const std::string& platform);

// The serialized xla.GlobalTopologyProto; INVALID_ARGUMENT when the shape does not fit XLA's
// numbering.
absl::StatusOr<std::string> EncodeGlobalTopology(const TopologyOptions& options);

// Hands out node ids. A process never retries collectives of a device set that failed there once, so
// no process gets an id twice. A new process knows nothing of the failures before it: the ids of its
// place begin again, behind those that were given last.
//
// Thread safety: all methods are thread-safe.
class NodeIds {
 public:
  explicit NodeIds(const TopologyOptions& options);

  // RESOURCE_EXHAUSTED when the worker's process has had all ids of its place.
  absl::StatusOr<int> New(WorkerId worker);
  // The place is another process's from now on.
  void NewProcess(WorkerId worker);
  // The worker that owns `node`; INVALID_ARGUMENT for node 0 and beyond the topology.
  absl::StatusOr<WorkerId> Owner(int node) const;
  int num_nodes() const { return options_.num_nodes(); }
  // Ids that the process at `worker` has left.
  int left(WorkerId worker) const;

 private:
  const TopologyOptions options_;
  mutable absl::Mutex mu_;
  struct Place {
    int64_t given = 0;       // ids so far
    int64_t by_process = 0;  // of these, to the process that is there now
  };
  std::vector<Place> places_ ABSL_GUARDED_BY(mu_);  // by worker
};

}  // namespace causeway::coordination
