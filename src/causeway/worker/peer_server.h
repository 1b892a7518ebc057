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
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "causeway/net/sockets.h"
#include "causeway/worker/peer_frames.h"
#include "causeway/worker/transfer_assembler.h"

namespace causeway::control {
class Data;
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
  absl::Status Greet(int fd, FrameSource& source);
  struct Stream;  // what one connection is at
  absl::Status ServeFrames(int fd, Stream& stream);
  absl::Status ReceiveWholes(Stream& stream);
  absl::Status ReceivePart(Stream& stream, control::Data& data);

  const Options options_;
  net::Socket listener_;
  int port_ = 0;
  std::thread acceptor_;
  absl::Mutex mu_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::list<Connection> connections_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::worker
