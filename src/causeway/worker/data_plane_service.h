// Worker-to-worker transfers over gRPC: a server that takes pushes and a client that sends them.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "causeway/worker/commands.h"

namespace causeway::worker {

// Thread safety: thread-safe.
class DataPlane {
 public:
  // Chunks that peers send; called on the server's threads, in order for one peer.
  using OnChunk = std::function<void(Chunk)>;

  // Listens on `port` (0 = any) of all addresses. UNAVAILABLE when it is taken.
  static absl::StatusOr<std::unique_ptr<DataPlane>> Start(int port, OnChunk on_chunk);
  ~DataPlane();

  int port() const { return port_; }
  // Membership evidence, for both directions.
  void SetToken(const std::string& token);
  // Addresses by worker; "" = dead: what waits for it is dropped.
  void SetPeers(std::vector<std::string> addresses);
  // Queues bytes (or the error in their place) for a worker. Never blocks.
  void Push(WorkerId to, TransferId transfer, absl::StatusOr<device::HostBytes> bytes);
  // Ports of peers' data planes.
  bool IsPeerPort(int port) const;

 private:
  class Service;
  class Peer;
  DataPlane() = default;

  std::unique_ptr<Service> service_;
  int port_ = 0;

  mutable absl::Mutex mu_;
  std::string token_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> addresses_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, std::unique_ptr<Peer>> peers_ ABSL_GUARDED_BY(mu_);  // by address
};

}  // namespace causeway::worker
