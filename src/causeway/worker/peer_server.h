// The receiving end of transfers between workers: a listening socket and a thread a connection.
//
// Bytes are received straight into the block that will be the array. A connection that does not
// begin with the token, or that sends something else than frames, is closed with a word in the log.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "causeway/net/sockets.h"
#include "causeway/worker/transfer_assembler.h"

namespace causeway::control {
class PushBatch;
class PushReply;
}  // namespace causeway::control

namespace causeway::worker {

// Thread safety: thread-safe.
class PeerServer {
 public:
  struct Options {
    int port = 0;  // on all addresses; 0 = any
    std::function<bool(const std::string& token)> trusts;
    // Called only once a peer is trusted.
    std::function<TransferAssembler&()> assembler;
  };
  // UNAVAILABLE when the port is taken.
  static absl::StatusOr<std::unique_ptr<PeerServer>> Start(Options options);
  ~PeerServer();
  int port() const { return port_; }

 private:
  struct Connection {
    net::Socket socket;
    std::thread thread;
    bool over = false;
  };
  explicit PeerServer(Options options) : options_(std::move(options)) {}
  void AcceptLoop();
  void Accept();
  void Serve(Connection* connection);
  absl::Status Greet(int fd);
  // Transfers of which a part came over a connection and more is to come, with their attempts.
  using Open = absl::flat_hash_map<TransferId, int>;
  absl::Status ServeFrames(int fd, Open& open);
  // Memory that is used again for every frame of a connection: new memory costs more than a copy.
  struct Scratch {
    char* Get();
    std::unique_ptr<char[]> memory;
  };
  absl::Status ReceiveParts(int fd, uint64_t body_bytes, control::PushBatch* batch,
                            control::PushReply* reply, Open& open, Scratch& scratch);
  static absl::Status Drop(int fd, int64_t size, Scratch& scratch);

  const Options options_;
  net::Socket listener_;
  int port_ = 0;
  std::thread acceptor_;
  absl::Mutex mu_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::list<Connection> connections_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::worker
