// Worker-to-worker transfers: a server that takes them, and one sender a peer.
//
// Blocks go through shared memory where both workers see the same (segments.h), else over plain TCP
// (peer_frames.h); blocks within one process do not come here.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "causeway/base/shared_memory.h"
#include "causeway/worker/commands.h"
#include "causeway/worker/peer_sender.h"
#include "causeway/worker/peer_server.h"
#include "causeway/worker/segments.h"
#include "causeway/worker/transfer_assembler.h"
#include "causeway/worker/transfer_stats.h"

namespace causeway::worker {

// Thread safety: thread-safe.
class DataPlane {
 public:
  // A transfer that a peer could not be given.
  using OnFailed = std::function<void(WorkerId to, TransferId, absl::Status)>;
  struct Options {
    int port = 0;  // on all addresses; 0 = any
    int lanes = 0;  // connections to a peer for large blocks; 0: as suits the processors
    int64_t damage_chunk = 0;  // fault injection
    // Where what peers send is put together; called once a peer has shown the token.
    std::function<TransferAssembler&()> assembler;
    OnFailed on_failed;
  };

  // UNAVAILABLE when the port is taken.
  static absl::StatusOr<std::unique_ptr<DataPlane>> Start(Options options);
  ~DataPlane();

  int port() const { return server_->port(); }
  // What peers must have to be given segments; "" = this host has no memory to share.
  const std::string& memory() const { return memory_; }
  // Membership evidence, for both directions, and whether blocks bear checksums.
  void Configure(const std::string& token, bool checksums);
  // By worker: addresses ("" = dead: what waits for it is dropped) and memory().
  void SetPeers(std::vector<std::string> addresses, std::vector<std::string> memories);
  // Queues bytes (or the error in their place) for a worker. Never blocks.
  void Push(WorkerId to, TransferId transfer, absl::StatusOr<device::HostBytes> bytes);
  // Ports of peers' data planes.
  bool IsPeerPort(int port) const;
  TransferStats& stats() { return stats_; }

 private:
  explicit DataPlane(Options options);
  std::unique_ptr<PeerSender> MakeSender(WorkerId to) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  TransferStats stats_;
  std::string memory_;
  std::unique_ptr<SharedFolder> folder_;
  std::unique_ptr<SegmentPool> segments_;

  mutable absl::Mutex mu_;
  std::string token_ ABSL_GUARDED_BY(mu_);
  bool closing_ ABSL_GUARDED_BY(mu_) = false;
  bool checksums_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::string> addresses_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> memories_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, std::unique_ptr<PeerSender>> peers_ ABSL_GUARDED_BY(mu_);  // by address
  std::vector<PeerSender*> senders_ ABSL_GUARDED_BY(mu_);  // of peers_, by worker; null: not yet
  std::vector<std::unique_ptr<PeerSender>> leaving_ ABSL_GUARDED_BY(mu_);  // of peers that are gone

  std::unique_ptr<PeerServer> server_;  // last: it asks for the token
};

}  // namespace causeway::worker
