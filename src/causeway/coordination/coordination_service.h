// The gRPC service through which the workers' XLA clients register and find each other.
//
// It answers from the head's own view and never waits for processes to register: membership is the
// controller's business (docs/architecture.md, "epochs"). Calls that wait hold no thread.
//
//   Begin(node) ----> tasks alive, rendezvous through the store
//   EndEpoch(why) --> waiting calls fail with ABORTED, their keys go, all nodes are over
//   Shutdown() -----> everything that waits is cancelled; new waits are refused
//
// Thread safety: all methods are thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "causeway/base/random.h"
#include "causeway/base/timers.h"
#include "causeway/coordination/barriers.h"
#include "causeway/coordination/kv_store.h"
#include "causeway/coordination/task_table.h"
#include "causeway/coordination/topology.h"

namespace grpc {
class Service;
}

namespace causeway::coordination {

class CoordinationService {
 public:
  CoordinationService(Timers& timers, Random& random);
  // Shutdown must have been called, and the gRPC server must be down.
  ~CoordinationService();

  // To be registered with a server builder; lives as long as this object.
  grpc::Service* service();

  // Writes the topology for XLA to read. INVALID_ARGUMENT when the shape does not fit XLA's
  // numbering. Publishing again replaces it for clients that are made later.
  absl::Status PublishTopology(const TopologyOptions& options);

  KvStore& store() { return store_; }
  TaskTable& tasks() { return tasks_; }

  // The node belongs to a live worker from now on.
  void Begin(int node);
  // Collectives of all earlier nodes are over: what waits for them, or comes to wait, fails with
  // ABORTED and `why`, and every key that the head did not publish is deleted. Call it before Begin
  // of the next epoch's nodes.
  void EndEpoch(const absl::Status& why);
  // Before the gRPC server's own Shutdown, which waits for calls to end.
  void Shutdown();

 private:
  class Impl;

  // Keys that outlive epochs.
  absl::Mutex mu_;
  std::set<std::string> published_ ABSL_GUARDED_BY(mu_);

  KvStore store_;
  TaskTable tasks_;
  Barriers barriers_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace causeway::coordination
