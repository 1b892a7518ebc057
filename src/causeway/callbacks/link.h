// The worker's side of host callbacks: one connection to the head's relay, for all channels.
//
// Keeps the connection for as long as it lives: connects in the background, again after a loss.
// Calls that run when it is lost, or come while it is not there, fail with UNAVAILABLE.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "causeway/callbacks/completions.h"
#include "causeway/callbacks/frame.h"
#include "causeway/net/sockets.h"

namespace causeway::callbacks {

struct LinkOptions {
  std::string host;
  int port = 0;
  uint64_t worker = 0;  // place in the cluster; for people who read logs
};

// Thread safety: all methods may be called from any thread; none of them blocks on the network.
class Link {
 public:
  // Runs once, on a thread of the pool. The results were written before, if the status is ok.
  using Done = absl::AnyInvocable<void(absl::Status) &&>;

  Link() = default;
  // Fails what is pending and joins the link's own threads; completions may still run.
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  // Call once. Returns at once; the connection comes in the background.
  void Start(LinkOptions options);
  // Waits until the relay has taken the connection. DEADLINE_EXCEEDED when it has not.
  absl::Status WaitConnected(absl::Duration timeout);
  // Whether a TCP connection with this local port is the link's.
  bool Owns(int local_port) const;

  // Sends a message to the client of the channel; the answer goes into `results`, which must stay
  // valid until `done` has run.
  void Call(absl::string_view token, std::string message, std::vector<absl::Span<char>> results,
            Done done);

  // Counts the instances of the calls of a group; the relay learns of the first and the last.
  void Use(absl::string_view token, uint64_t group);
  void Unuse(absl::string_view token, uint64_t group);

 private:
  struct Pending {
    std::vector<absl::Span<char>> results;
    Done done;
    uint64_t received = 0;  // of the results' bytes
  };
  struct Outgoing {
    uint64_t call = 0;
    std::string message;
    size_t sent = 0;
  };
  struct Channel {
    std::deque<Outgoing> queue;  // a piece of each in turn
    int64_t in_relay = 0;        // bytes sent and not granted back
  };

  static Completions& Pool();  // of the process: it outlives every link, XLA's work runs on it
  void Run();
  absl::Status Handshake();
  void ReadUntilLost();
  void WriteUntilLost();
  bool TakeNext(Frame& frame, std::string& piece) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool CanSend() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnFrame(Frame frame);
  void OnResult(const Frame& frame, Pending call);
  void Finish(Pending call, absl::Status status);
  void FailAll(const absl::Status& status);

  LinkOptions options_;  // fixed after Start
  std::thread thread_;

  mutable absl::Mutex mu_;
  net::Socket socket_ ABSL_GUARDED_BY(mu_);
  int local_port_ ABSL_GUARDED_BY(mu_) = 0;
  bool connected_ ABSL_GUARDED_BY(mu_) = false;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t next_call_ ABSL_GUARDED_BY(mu_) = 1;
  absl::flat_hash_map<uint64_t, Pending> pending_ ABSL_GUARDED_BY(mu_);
  std::deque<Frame> control_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Channel> channels_
      ABSL_GUARDED_BY(mu_);                        // with something to send or granted
  std::string last_channel_ ABSL_GUARDED_BY(mu_);  // served last
  std::map<std::pair<std::string, uint64_t>, int64_t> uses_ ABSL_GUARDED_BY(mu_);
};

}  // namespace causeway::callbacks
