// The routing of calls and results, and the end of connections.
#include "causeway/callbacks/router.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "causeway/base/check.h"

namespace causeway::callbacks {
namespace {

// A window is granted back in parts of this size, so that grants stay few.
constexpr int64_t kGrantBytes = kWindowBytes / 4;

int64_t OnWire(size_t payload_bytes) { return static_cast<int64_t>(kHeaderBytes + payload_bytes); }

}  // namespace

Router::Connection* Router::Find(ConnectionId id) {
  auto it = connections_.find(id);
  return it == connections_.end() ? nullptr : &it->second;
}

void Router::Send(ConnectionId to, Frame frame) {
  if (Connection* c = Find(to)) c->queued_bytes += OnWire(frame.payload.size());
  wire_.Send(to, std::move(frame));
}

void Router::Opened(ConnectionId id, absl::Time now) {
  now_ = now;
  const bool fresh = connections_.emplace(id, Connection{.opened = now}).second;
  CHECK(fresh);
}

void Router::Refuse(ConnectionId id, Connection& connection, const std::string& reason) {
  if (connection.closing) return;
  connection.closing = true;
  Frame frame{.kind = Kind::kRefused};
  frame.payload = reason;
  Send(id, std::move(frame));
  wire_.Close(id, reason);
}

void Router::Received(ConnectionId from, Frame frame) {
  Connection* connection = Find(from);
  if (connection == nullptr || connection->closing) return;
  switch (connection->role) {
    case Connection::Role::kOpened:
      return Hello(from, *connection, frame);
    case Connection::Role::kWorker:
      return FromWorker(from, *connection, std::move(frame));
    case Connection::Role::kClient:
      return FromClient(from, *connection, std::move(frame));
  }
}

void Router::Hello(ConnectionId from, Connection& connection, const Frame& frame) {
  absl::string_view rest = frame.payload;
  uint32_t version = 0;
  const bool known = frame.kind == Kind::kClientHello || frame.kind == Kind::kWorkerHello;
  if (!known || rest.substr(0, kMagic.size()) != kMagic) {
    return Refuse(from, connection, "this port serves host callbacks; the first frame is no hello");
  }
  rest.remove_prefix(kMagic.size());
  if (!TakeInt(rest, version) || version != kVersion) {
    return Refuse(from, connection,
                  absl::StrCat("callback protocol version ", version, " is not ", kVersion,
                               "; install the client package that came with this cluster"));
  }
  if (frame.kind == Kind::kWorkerHello) {
    connection.role = Connection::Role::kWorker;
    ++stats_.workers;
  } else {
    std::string token(rest);
    if (!IsToken(token)) return Refuse(from, connection, "the channel's token is malformed");
    if (!clients_.emplace(token, from).second) {
      return Refuse(from, connection,
                    "the channel's token is in use by another connection; make a channel of your "
                    "own, or close that one");
    }
    connection.role = Connection::Role::kClient;
    connection.token = std::move(token);
    ++stats_.clients;
  }
  Send(from, Frame{.kind = Kind::kWelcome, .worker = from});
}

void Router::FromWorker(ConnectionId from, Connection& worker, Frame frame) {
  if (frame.kind == Kind::kCall) return Call(from, worker, std::move(frame));
  if ((frame.kind != Kind::kUse && frame.kind != Kind::kUnuse) || !IsToken(frame.payload)) {
    return Refuse(from, worker, "a worker may send only calls and uses of groups");
  }
  const std::pair<std::string, uint64_t> key(std::move(frame.payload), frame.call);
  if (frame.kind == Kind::kUnuse) return Unuse(from, key);
  Group& group = groups_[key];
  group.workers.insert(from);
  group.changed = now_;
}

void Router::Unuse(ConnectionId worker, const std::pair<std::string, uint64_t>& key) {
  auto it = groups_.find(key);
  if (it == groups_.end() || it->second.workers.erase(worker) == 0) return;
  it->second.changed = now_;
  if (it->second.workers.empty() && !it->second.gone) groups_.erase(it);
}

// A worker's call goes to the client whose channel it names. Every piece names it, so that the
// window of a call that has failed meanwhile can be given back.
void Router::Call(ConnectionId from, Connection& worker, Frame frame) {
  const std::pair<ConnectionId, uint64_t> key(from, frame.call);
  const std::string token = frame.payload.substr(0, kTokenChars);
  const int64_t bytes = OnWire(frame.payload.size());
  if (!IsToken(token) || (frame.first && calls_.count(key) != 0)) {
    return Refuse(from, worker, "a callback must name a channel in each piece and begin once");
  }
  int64_t& in_relay = worker.accounts[token].in_relay;
  in_relay += bytes;
  if (in_relay > kWindowBytes + OnWire(kPayloadBytesMax)) {
    return Refuse(from, worker, "the worker sent more than its window for a channel");
  }
  frame.worker = from;
  if (frame.first) {
    ++stats_.calls;
    absl::Status status;
    auto client = clients_.find(token);
    if (client == clients_.end()) {
      status = absl::UnavailableError(
          "host callback: the client that registered the Python function is not connected to this "
          "cluster; run the program from a client that is");
    } else if (stats_.pending_calls >= kCallsPerWorkerMax * stats_.workers) {
      status = absl::ResourceExhaustedError(
          "host callback: too many calls wait for their clients; run fewer programs at a time");
    }
    if (!status.ok()) {
      ++stats_.failed_at_once;
      Send(from, ErrorFrame(from, frame.call, status));
      return Settle(from, worker, token, bytes);
    }
    calls_.emplace(key, client->second);
    Find(client->second)->calls.insert(key);
    ++stats_.pending_calls;
  }
  auto call = calls_.find(key);
  if (call == calls_.end()) return Settle(from, worker, token, bytes);  // failed meanwhile
  Send(call->second, std::move(frame));
}

// `bytes` of the worker's window for the channel are free again; tells it now and then.
void Router::Settle(ConnectionId to, Connection& worker, const std::string& token, int64_t bytes) {
  auto it = worker.accounts.find(token);
  if (it == worker.accounts.end()) return;
  Account& account = it->second;
  account.owed += bytes;
  if (account.owed < kGrantBytes && account.owed < account.in_relay) return;
  Frame grant{.kind = Kind::kGrant, .call = static_cast<uint64_t>(account.owed)};
  grant.payload = token;
  account.in_relay -= account.owed;
  account.owed = 0;
  const bool empty = account.in_relay <= 0;
  if (empty) worker.accounts.erase(it);
  if (grant.call != 0) Send(to, std::move(grant));
}

void Router::FromClient(ConnectionId from, Connection& client, Frame frame) {
  if (frame.kind != Kind::kResult && frame.kind != Kind::kError) {
    return Refuse(from, client, "a client may send only results and errors of calls");
  }
  const std::pair<ConnectionId, uint64_t> key(frame.worker, frame.call);
  auto call = calls_.find(key);
  if (call == calls_.end()) return;  // its worker is gone, or it was answered
  if (call->second != from) return Refuse(from, client, "an answer to a call of another channel");
  if (frame.last || frame.kind == Kind::kError) {
    calls_.erase(call);
    client.calls.erase(key);
    --stats_.pending_calls;
  }
  const ConnectionId to = frame.worker;
  Send(to, std::move(frame));
  Connection& worker = *Find(to);
  if (worker.queued_bytes > kWorkerQueueBytes && worker.pausing.insert(from).second &&
      client.paused_by++ == 0) {
    wire_.SetReading(from, false);
  }
}

void Router::Resume(ConnectionId worker_id, Connection& worker) {
  for (ConnectionId id : worker.pausing) {
    Connection* client = Find(id);
    if (client != nullptr && --client->paused_by == 0) wire_.SetReading(id, true);
  }
  worker.pausing.clear();
}

void Router::Written(ConnectionId to, Kind kind, uint64_t worker_id, size_t payload_bytes) {
  Connection* connection = Find(to);
  if (connection == nullptr) return;
  connection->queued_bytes -= OnWire(payload_bytes);
  if (connection->role == Connection::Role::kWorker &&
      connection->queued_bytes <= kWorkerQueueBytes / 2) {
    Resume(to, *connection);
  }
  if (kind != Kind::kCall) return;
  if (Connection* worker = Find(worker_id)) {
    Settle(worker_id, *worker, connection->token, OnWire(payload_bytes));
  }
}

void Router::Closed(ConnectionId id) {
  auto found = connections_.find(id);
  if (found == connections_.end()) return;
  Connection connection = std::move(found->second);
  connections_.erase(found);
  if (connection.role == Connection::Role::kClient) {
    --stats_.clients;
    clients_.erase(connection.token);
    for (const auto& key : connection.calls) {
      calls_.erase(key);
      --stats_.pending_calls;
      Send(key.first, ErrorFrame(key.first, key.second,
                                 absl::UnavailableError(
                                     "host callback: the client's callback channel was closed "
                                     "while the call ran; the client ended or lost the network")));
    }
    for (auto& [worker_id, worker] : connections_) {
      worker.pausing.erase(id);
      auto account = worker.accounts.find(connection.token);
      if (account == worker.accounts.end()) continue;
      account->second.owed = account->second.in_relay;
      Settle(worker_id, worker, connection.token, 0);
    }
  } else if (connection.role == Connection::Role::kWorker) {
    --stats_.workers;
    Resume(id, connection);
    absl::flat_hash_set<ConnectionId> told;
    auto call = calls_.lower_bound({id, 0});
    while (call != calls_.end() && call->first.first == id) {
      if (Connection* client = Find(call->second)) {
        client->calls.erase(call->first);
        if (told.insert(call->second).second) {
          Send(call->second, Frame{.kind = Kind::kWorkerGone, .worker = id});
        }
      }
      --stats_.pending_calls;
      call = calls_.erase(call);
    }
    std::vector<std::pair<std::string, uint64_t>> used;
    for (const auto& [key, group] : groups_) {
      if (group.workers.contains(id)) used.push_back(key);
    }
    for (const auto& key : used) Unuse(id, key);
  }
}

void Router::ProgramGone(absl::string_view token, uint64_t group, absl::Time now) {
  now_ = now;
  Group& entry = groups_[{std::string(token), group}];
  entry.gone = true;
  entry.changed = now;
}

void Router::Tick(absl::Time now) {
  now_ = now;
  for (auto& [id, connection] : connections_) {
    if (connection.role == Connection::Role::kOpened &&
        now - connection.opened > absl::Seconds(kHelloSecondsMax)) {
      Refuse(id, connection, "no hello came in time");
    }
  }
  for (auto it = groups_.begin(); it != groups_.end();) {
    const Group& group = it->second;
    // The grace covers a worker that instantiates the program after its handle is gone: a launch
    // that was queued before may still load it.
    if (!group.gone || !group.workers.empty() || now - group.changed < release_grace_) {
      ++it;
      continue;
    }
    auto client = clients_.find(it->first.first);
    if (client != clients_.end()) {
      Send(client->second, Frame{.kind = Kind::kRelease, .call = it->first.second});
      ++stats_.released_groups;
    }
    it = groups_.erase(it);
  }
}

}  // namespace causeway::callbacks
