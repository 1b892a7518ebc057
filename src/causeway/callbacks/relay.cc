// The relay's thread: epoll, a queue and a frame reader a connection; the router decides.
#include "causeway/callbacks/relay.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "causeway/base/check.h"
#include "causeway/base/log.h"
#include "causeway/base/status_macros.h"
#include "causeway/net/sockets.h"

namespace causeway::callbacks {
namespace {

constexpr uint64_t kListener = 0;
constexpr uint64_t kWakeUp = 1;
constexpr uint64_t kFirstConnection = 2;
constexpr absl::Duration kTick = absl::Seconds(1);
// What one connection may read in its turn, so that a busy one does not starve the others.
constexpr int kReadsInTurn = 64;

}  // namespace

class Relay::Loop : public Wire {
 public:
  Loop(RelayOptions options, net::Socket listener, net::Socket epoll, net::Socket wake_up)
      : listener_(std::move(listener)),
        epoll_(std::move(epoll)),
        wake_up_(std::move(wake_up)),
        port_(net::LocalPort(listener_.fd())),
        router_(*this, options.release_grace) {
    Watch(EPOLL_CTL_ADD, listener_.fd(), kListener, EPOLLIN);
    Watch(EPOLL_CTL_ADD, wake_up_.fd(), kWakeUp, EPOLLIN);
    thread_ = std::thread([this] { Run(); });
  }

  ~Loop() override {
    {
      absl::MutexLock lock(&mu_);
      stop_ = true;
    }
    WakeUp();
    thread_.join();
  }

  int port() const { return port_; }

  void ProgramGone(absl::string_view token, uint64_t group) {
    {
      absl::MutexLock lock(&mu_);
      gone_.emplace_back(std::string(token), group);
    }
    WakeUp();
  }

  RouterStats GetStats() const {
    absl::MutexLock lock(&mu_);
    return stats_;
  }

  // ------------------------------------------------------- Wire, called by the router
  void Send(ConnectionId to, Frame frame) override {
    auto it = connections_.find(to);
    if (it == connections_.end()) return;
    Connection& connection = *it->second;
    Outgoing out{.header = EncodeHeader(frame, frame.payload.size()), .frame = std::move(frame)};
    connection.queue.push_back(std::move(out));
    touched_.push_back(to);
  }

  void Close(ConnectionId id, const std::string& reason) override {
    LOG(WARNING) << "a host callback connection is closed: " << reason;
    auto it = connections_.find(id);
    if (it == connections_.end()) return;
    it->second->closing = true;
    it->second->closed = absl::Now();
    touched_.push_back(id);
  }

  void SetReading(ConnectionId id, bool reading) override {
    auto it = connections_.find(id);
    if (it == connections_.end()) return;
    it->second->reading = reading;
    touched_.push_back(id);
  }

 private:
  struct Outgoing {
    std::string header;
    Frame frame;
  };
  struct Connection {
    net::Socket socket;
    FrameReader reader;
    std::deque<Outgoing> queue;
    size_t front_written = 0;  // of header and payload together
    bool reading = true;
    bool closing = false;  // once the queue is written, or too long after `closed`
    absl::Time closed;
    bool broken = false;
    uint32_t watched = EPOLLIN;
  };

  void WakeUp() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(wake_up_.fd(), &one, sizeof one);
  }

  void Watch(int operation, int fd, uint64_t id, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = id;
    CHECK_EQ(::epoll_ctl(epoll_.fd(), operation, fd, &event), 0);
  }

  void Run() {
    absl::Time next_tick = absl::Now();
    std::array<epoll_event, 64> events;
    while (true) {
      const int64_t wait_ms = absl::ToInt64Milliseconds(next_tick - absl::Now()) + 1;
      const int n = ::epoll_wait(epoll_.fd(), events.data(), events.size(),
                                 static_cast<int>(std::max<int64_t>(0, wait_ms)));
      for (int i = 0; i < n; ++i) {
        if (events[i].data.u64 == kListener) {
          Accept();
        } else if (events[i].data.u64 == kWakeUp) {
          uint64_t count = 0;
          [[maybe_unused]] const ssize_t r = ::read(wake_up_.fd(), &count, sizeof count);
        } else {
          Serve(events[i].data.u64, events[i].events);
        }
      }
      if (!TakePosted()) return;
      if (absl::Now() >= next_tick) {
        router_.Tick(absl::Now());
        BreakLate();
        next_tick = absl::Now() + kTick;
      }
      Flush();
    }
  }

  // What other threads asked for. False: stop.
  bool TakePosted() {
    std::vector<std::pair<std::string, uint64_t>> gone;
    {
      absl::MutexLock lock(&mu_);
      if (stop_) return false;
      gone.swap(gone_);
      stats_ = router_.stats();
    }
    for (const auto& [token, group] : gone) router_.ProgramGone(token, group, absl::Now());
    return true;
  }

  // Ends connections that are closing, but whose peers do not take the rest.
  void BreakLate() {
    const absl::Time late = absl::Now() - absl::Seconds(kHelloSecondsMax);
    for (auto& [id, connection] : connections_) {
      if (!connection->closing || connection->closed > late) continue;
      connection->broken = true;
      touched_.push_back(id);
    }
  }

  void Accept() {
    for (int i = 0; i < 64; ++i) {
      net::Socket socket(::accept4(listener_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!socket) return;
      if (connections_.size() >= kConnectionsMax) {
        LOG(WARNING) << "a host callback connection is refused: " << kConnectionsMax
                     << " are open already";
        continue;
      }
      net::Configure(socket.fd());
      const ConnectionId id = next_id_++;
      Watch(EPOLL_CTL_ADD, socket.fd(), id, EPOLLIN);
      Connection connection;
      connection.socket = std::move(socket);
      connections_.emplace(id, std::make_unique<Connection>(std::move(connection)));
      router_.Opened(id, absl::Now());
    }
  }

  void Serve(ConnectionId id, uint32_t events);
  bool Read(ConnectionId id, Connection& connection);
  bool Write(ConnectionId id, Connection& connection);
  void Flush();
  void Remove(ConnectionId id);

  // Fixed after construction.
  const net::Socket listener_, epoll_, wake_up_;
  const int port_;
  // The thread's own.
  Router router_;
  absl::flat_hash_map<ConnectionId, std::unique_ptr<Connection>> connections_;
  std::vector<ConnectionId> touched_;  // by the router, since the last Flush
  ConnectionId next_id_ = kFirstConnection;
  std::thread thread_;

  mutable absl::Mutex mu_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::pair<std::string, uint64_t>> gone_ ABSL_GUARDED_BY(mu_);
  RouterStats stats_ ABSL_GUARDED_BY(mu_);
};

void Relay::Loop::Serve(ConnectionId id, uint32_t events) {
  auto it = connections_.find(id);
  if (it == connections_.end()) return;
  Connection& connection = *it->second;
  // Reported even where nothing is watched for: a connection that is not read must end here.
  if ((events & (EPOLLHUP | EPOLLERR)) != 0 && (!connection.reading || connection.closing)) {
    connection.broken = true;
  }
  // A hang-up is seen by the read, after what was sent before it.
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !connection.closing &&
      !Read(id, connection)) {
    connection.broken = true;
  }
  touched_.push_back(id);
}

// False: the peer is gone, or speaks nonsense.
bool Relay::Loop::Read(ConnectionId id, Connection& connection) {
  for (int i = 0; i < kReadsInTurn && connection.reading && !connection.closing; ++i) {
    const ssize_t n =
        ::recv(connection.socket.fd(), connection.reader.data(), connection.reader.space(), 0);
    if (n == 0) return false;
    if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    Frame frame;
    absl::StatusOr<bool> complete = connection.reader.Advance(static_cast<size_t>(n), frame);
    if (!complete.ok()) {
      LOG(WARNING) << "a host callback connection is closed: " << complete.status().message();
      return false;
    }
    if (*complete) router_.Received(id, std::move(frame));
  }
  return true;
}

// False: the peer is gone. Otherwise all is written, or the socket is full.
bool Relay::Loop::Write(ConnectionId id, Connection& connection) {
  while (!connection.queue.empty()) {
    Outgoing& out = connection.queue.front();
    const size_t header_done = std::min(connection.front_written, kHeaderBytes);
    const size_t payload_done = connection.front_written - header_done;
    std::array<iovec, 2> parts = {
        iovec{out.header.data() + header_done, kHeaderBytes - header_done},
        iovec{out.frame.payload.data() + payload_done, out.frame.payload.size() - payload_done}};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    const ssize_t n = ::sendmsg(connection.socket.fd(), &message, MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    connection.front_written += static_cast<size_t>(n);
    if (connection.front_written < kHeaderBytes + out.frame.payload.size()) continue;
    const Frame frame = std::move(out.frame);
    connection.queue.pop_front();
    connection.front_written = 0;
    router_.Written(id, frame.kind, frame.worker, frame.payload.size());
  }
  return true;
}

// Writes what the router has queued, until nothing new comes; then watches for what is left.
void Relay::Loop::Flush() {
  while (!touched_.empty()) {
    const ConnectionId id = touched_.back();
    touched_.pop_back();
    auto it = connections_.find(id);
    if (it == connections_.end()) continue;
    Connection& connection = *it->second;
    if (!connection.broken && !Write(id, connection)) connection.broken = true;
    if (connection.broken || (connection.closing && connection.queue.empty())) {
      Remove(id);
      continue;
    }
    const uint32_t wanted = (connection.reading && !connection.closing ? EPOLLIN : 0u) |
                            (connection.queue.empty() ? 0u : static_cast<uint32_t>(EPOLLOUT));
    if (wanted != connection.watched) {
      connection.watched = wanted;
      Watch(EPOLL_CTL_MOD, connection.socket.fd(), id, wanted);
    }
  }
}

void Relay::Loop::Remove(ConnectionId id) {
  connections_.erase(id);  // closing the descriptor takes it out of epoll
  router_.Closed(id);
}

Relay::Relay(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}
Relay::~Relay() = default;

absl::StatusOr<std::unique_ptr<Relay>> Relay::Start(RelayOptions options) {
  ASSIGN_OR_RETURN(net::Socket listener, net::Listen(options.host, options.port));
  if (::fcntl(listener.fd(), F_SETFL, O_NONBLOCK) != 0) {
    return absl::InternalError("cannot make the host callback listener non-blocking");
  }
  net::Socket epoll(::epoll_create1(EPOLL_CLOEXEC));
  net::Socket wake_up(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll || !wake_up) {
    return absl::ResourceExhaustedError(
        "no descriptors are left for the host callback relay; raise the limit on open files");
  }
  return std::unique_ptr<Relay>(new Relay(std::make_unique<Loop>(
      std::move(options), std::move(listener), std::move(epoll), std::move(wake_up))));
}

int Relay::port() const { return loop_->port(); }
void Relay::ProgramGone(absl::string_view token, uint64_t group) {
  loop_->ProgramGone(token, group);
}
RouterStats Relay::GetStats() const { return loop_->GetStats(); }

}  // namespace causeway::callbacks
