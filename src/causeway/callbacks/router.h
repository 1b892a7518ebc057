// Decides what the relay does with each frame: no I/O, no clock, no threads.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "causeway/callbacks/frame.h"

namespace causeway::callbacks {

// A connection of the relay. Never used twice, so a late answer reaches no other worker.
using ConnectionId = uint64_t;

// What the router wants done. Called from within the router's methods; must not call back into it.
class Wire {
 public:
  virtual ~Wire() = default;
  // Queues the frame. The wire reports Router::Written (or Closed) for it later.
  virtual void Send(ConnectionId to, Frame frame) = 0;
  // Ends the connection once its queue is written. The wire reports Router::Closed later.
  virtual void Close(ConnectionId id, const std::string& reason) = 0;
  // Stops or resumes reading from a connection.
  virtual void SetReading(ConnectionId id, bool reading) = 0;
};

struct RouterStats {
  int64_t clients = 0;
  int64_t workers = 0;
  int64_t pending_calls = 0;
  int64_t calls = 0;
  int64_t failed_at_once = 0;  // no such client, or too many calls
  int64_t released_groups = 0;
};

// States of a connection:  opened --hello--> client | worker --Closed--> forgotten
//                          opened --bad hello, or none in time--> refused
// Thread safety: none; the relay's thread owns it.
class Router {
 public:
  explicit Router(Wire& wire, absl::Duration release_grace = absl::Seconds(kReleaseGraceSeconds))
      : wire_(wire), release_grace_(release_grace) {}

  void Opened(ConnectionId id, absl::Time now);
  void Received(ConnectionId from, Frame frame);
  // A frame of that kind, worker and size has left for `to`.
  void Written(ConnectionId to, Kind kind, uint64_t worker, size_t payload_bytes);
  void Closed(ConnectionId id);

  // The head's last handle of the program is gone.
  void ProgramGone(absl::string_view token, uint64_t group, absl::Time now);

  // Ends what has waited too long; to be called about every second.
  void Tick(absl::Time now);

  const RouterStats& stats() const { return stats_; }

 private:
  struct Account {         // of one worker for one channel
    int64_t in_relay = 0;  // bytes that arrived and were not granted back
    int64_t owed = 0;      // those of them that have left
  };
  struct Connection {
    enum class Role { kOpened, kClient, kWorker } role = Role::kOpened;
    absl::Time opened;
    bool closing = false;
    std::string token;                                         // client
    absl::flat_hash_set<std::pair<uint64_t, uint64_t>> calls;  // client: (worker, call)
    int paused_by = 0;                                         // client: workers with a long queue
    absl::flat_hash_map<std::string, Account> accounts;        // worker: by token
    absl::flat_hash_set<ConnectionId> pausing;                 // worker: clients it holds up
    int64_t queued_bytes = 0;                                  // towards it
  };
  struct Group {
    absl::flat_hash_set<ConnectionId> workers;
    bool gone = false;
    absl::Time changed = absl::InfinitePast();
  };

  void Hello(ConnectionId from, Connection& connection, const Frame& frame);
  void FromWorker(ConnectionId from, Connection& worker, Frame frame);
  void FromClient(ConnectionId from, Connection& client, Frame frame);
  void Call(ConnectionId from, Connection& worker, Frame frame);
  void Settle(ConnectionId to, Connection& worker, const std::string& token, int64_t bytes);
  void Refuse(ConnectionId id, Connection& connection, const std::string& reason);
  void Send(ConnectionId to, Frame frame);
  void Unuse(ConnectionId worker, const std::pair<std::string, uint64_t>& key);
  void Resume(ConnectionId worker_id, Connection& worker);
  Connection* Find(ConnectionId id);

  Wire& wire_;
  const absl::Duration release_grace_;
  absl::Time now_ = absl::InfinitePast();
  absl::flat_hash_map<ConnectionId, Connection> connections_;
  absl::flat_hash_map<std::string, ConnectionId> clients_;  // by token
  // (worker, call) -> client. Ordered, so that a worker's calls lie side by side.
  std::map<std::pair<ConnectionId, uint64_t>, ConnectionId> calls_;
  std::map<std::pair<std::string, uint64_t>, Group> groups_;  // in use, or gone and not released
  RouterStats stats_;
};

}  // namespace causeway::callbacks
