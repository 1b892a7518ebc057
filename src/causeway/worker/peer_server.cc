// Accepting peers, and receiving what they send where it belongs.
#include "causeway/worker/peer_server.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "causeway/base/limits.h"
#include "causeway/base/log.h"
#include "causeway/base/status_macros.h"
#include "causeway/worker/command_codec.h"
#include "causeway/worker/peer_frames.h"
#include "control.pb.h"

namespace causeway::worker {
namespace {

// A stranger has this long to say the token.
constexpr absl::Duration kGreetingMax = absl::Seconds(10);
// When the machine has no descriptor for one more connection.
constexpr absl::Duration kAcceptPause = absl::Milliseconds(50);
// Bodies of small blocks are received at once and copied from there.
constexpr int64_t kScratchBytes = 512 << 10;

}  // namespace

absl::StatusOr<std::unique_ptr<PeerServer>> PeerServer::Start(Options options) {
  const int port = options.port;
  std::unique_ptr<PeerServer> server(new PeerServer(std::move(options)));
  auto listener = net::Listen("0.0.0.0", port);
  if (!listener.ok()) {
    return absl::UnavailableError(absl::StrCat("the data port ", port, " cannot be used (",
                                               listener.status().message(),
                                               "); choose another one or 0"));
  }
  server->listener_ = *std::move(listener);
  server->port_ = net::LocalPort(server->listener_.fd());
  server->acceptor_ = std::thread([raw = server.get()] { raw->AcceptLoop(); });
  return server;
}

PeerServer::~PeerServer() {
  {
    absl::MutexLock lock(&mu_);
    stop_ = true;
    for (const Connection& c : connections_) (void)::shutdown(c.socket.fd(), SHUT_RDWR);
  }
  // Wakes the acceptor, too.
  (void)::shutdown(listener_.fd(), SHUT_RDWR);
  if (acceptor_.joinable()) acceptor_.join();
  // No more can come.
  std::list<Connection> rest;
  {
    absl::MutexLock lock(&mu_);
    rest.splice(rest.end(), connections_);
  }
  for (Connection& c : rest) c.thread.join();
}

void PeerServer::AcceptLoop() {
  while (true) {
    pollfd wait{listener_.fd(), POLLIN, 0};
    (void)::poll(&wait, 1, -1);
    std::list<Connection> over;  // joined without the lock
    {
      absl::MutexLock lock(&mu_);
      if (stop_) return;
      for (auto it = connections_.begin(); it != connections_.end();) {
        const auto current = it++;
        if (current->over) over.splice(over.end(), connections_, current);
      }
    }
    for (Connection& c : over) c.thread.join();
    Accept();
  }
}

void PeerServer::Accept() {
  absl::StatusOr<net::Socket> socket = net::Accept(listener_.fd());
  if (!socket.ok()) {
    absl::MutexLock lock(&mu_);
    mu_.AwaitWithTimeout(absl::Condition(&stop_), kAcceptPause);
    return;
  }
  absl::MutexLock lock(&mu_);
  if (stop_) return;
  if (connections_.size() >= limits::kPushConnectionsMax) {
    LOG(WARNING) << "refused a connection for transfers: there are " << connections_.size();
    return;
  }
  Connection& connection = connections_.emplace_back();
  connection.socket = *std::move(socket);
  connection.thread = std::thread([this, &connection] { Serve(&connection); });
}

void PeerServer::Serve(Connection* connection) {
  const int fd = connection->socket.fd();
  absl::Status end = Greet(fd);
  if (end.ok()) {
    Open open;
    end = ServeFrames(fd, open);
    // The peer, should it live, begins them anew.
    for (const auto& [transfer, attempt] : open) options_.assembler().Abandon(transfer, attempt);
  }
  if (!absl::IsOutOfRange(end)) {
    LOG(WARNING) << "a connection for transfers from " << net::PeerName(fd)
                 << " ended: " << end.message();
  }
  (void)::shutdown(fd, SHUT_RDWR);
  absl::MutexLock lock(&mu_);
  connection->over = true;
}

absl::Status PeerServer::Greet(int fd) {
  RETURN_IF_ERROR(net::SetTimeouts(fd, kGreetingMax, kGreetingMax));
  control::PushBatch hello;
  ASSIGN_OR_RETURN(const FrameHead head, ReceiveFrame(fd, &hello));
  if (head.body_bytes != 0 || !options_.trusts(hello.token())) {
    const absl::Status why =
        absl::PermissionDeniedError("the sender does not know this cluster's token");
    control::PushReply reply;
    reply.mutable_refused()->set_code(static_cast<int>(why.code()));
    reply.mutable_refused()->set_message(std::string(why.message()));
    (void)SendFrame(fd, reply);
    return why;
  }
  // A peer may have nothing to say for long; the kernel finds out when it is gone.
  return net::SetTimeouts(fd, absl::Seconds(limits::kPushStallSecondsMax), absl::ZeroDuration());
}

char* PeerServer::Scratch::Get() {
  if (memory == nullptr) memory.reset(new char[kScratchBytes]);
  return memory.get();
}

// Bytes of a part that nobody wants.
absl::Status PeerServer::Drop(int fd, int64_t size, Scratch& scratch) {
  while (size > 0) {
    const auto now = std::min(size, kScratchBytes);
    RETURN_IF_ERROR(net::ReceiveAll(fd, scratch.Get(), static_cast<size_t>(now)));
    size -= now;
  }
  return absl::OkStatus();
}

absl::Status PeerServer::ServeFrames(int fd, Open& open) {
  control::PushBatch batch;
  Scratch scratch;
  while (true) {
    ASSIGN_OR_RETURN(const FrameHead head, ReceiveFrame(fd, &batch));
    control::PushReply reply;
    RETURN_IF_ERROR(ReceiveParts(fd, head.body_bytes, &batch, &reply, open, scratch));
    if (reply.done_size() + reply.problems_size() > 0) RETURN_IF_ERROR(SendFrame(fd, reply));
  }
}

absl::Status PeerServer::ReceiveParts(int fd, uint64_t body_bytes, control::PushBatch* batch,
                                      control::PushReply* reply, Open& open, Scratch& scratch) {
  uint64_t promised = 0;
  for (const control::Data& data : batch->data()) {
    if (data.size() < 0 || static_cast<uint64_t>(data.size()) > body_bytes - promised) {
      return absl::DataLossError("a frame's parts do not fit its body");
    }
    if (data.size() > 0 && (data.has_error() || !data.segment().empty())) {
      return absl::DataLossError("a frame has bytes for a part that needs none");
    }
    promised += static_cast<uint64_t>(data.size());
  }
  if (promised != body_bytes) return absl::DataLossError("a frame's body is longer than its parts");
  const bool small = body_bytes <= kScratchBytes && batch->data_size() > 1;
  if (small && body_bytes > 0) {
    RETURN_IF_ERROR(net::ReceiveAll(fd, scratch.Get(), body_bytes));
  }
  int64_t at = 0;
  TransferAssembler& assembler = options_.assembler();
  for (control::Data& data : *batch->mutable_data()) {
    const int64_t size = data.size();
    Chunk part = DecodeChunk(&data);
    const TransferId transfer = part.transfer;
    const int attempt = part.attempt;
    TransferAssembler::Outcome outcome;
    if (!part.error.ok() || !part.segment.empty()) {
      outcome = assembler.AddFromPeer(std::move(part));
    } else if (small && part.offset == 0 && part.total == size) {
      outcome = assembler.AddWhole(
          part, absl::string_view(scratch.Get() + at, static_cast<size_t>(size)));
      at += size;
    } else {
      open[transfer] = attempt;
      const TransferAssembler::Landing landing = assembler.BeginPart(part, size);
      if (small) {
        if (landing.to != nullptr && size > 0) {
          std::memcpy(landing.to, scratch.Get() + at, static_cast<size_t>(size));
        }
        at += size;
      } else if (size > 0 && landing.to != nullptr) {
        RETURN_IF_ERROR(net::ReceiveAll(fd, landing.to, static_cast<size_t>(size)));
      } else {
        RETURN_IF_ERROR(Drop(fd, size, scratch));
      }
      outcome = assembler.EndPart(part, size, landing);
    }
    if (outcome.complete || !outcome.refused.ok()) open.erase(transfer);
    if (outcome.complete) reply->add_done(transfer.value());
    if (outcome.refused.ok()) continue;
    control::PushProblem* problem = reply->add_problems();
    problem->set_transfer(transfer.value());
    problem->set_attempt(attempt);
    problem->mutable_status()->set_code(static_cast<int>(outcome.refused.code()));
    problem->mutable_status()->set_message(std::string(outcome.refused.message()));
  }
  return absl::OkStatus();
}

}  // namespace causeway::worker
