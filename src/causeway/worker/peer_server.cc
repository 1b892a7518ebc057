// Accepting peers, and receiving what they send where it belongs.
#include "causeway/worker/peer_server.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "causeway/base/limits.h"
#include "causeway/base/log.h"
#include "causeway/base/status_macros.h"
#include "causeway/worker/command_codec.h"
#include "control.pb.h"

namespace causeway::worker {
namespace {

// A stranger has this long to say the token.
constexpr absl::Duration kGreetingMax = absl::Seconds(10);
// When the machine has no descriptor for one more connection.
constexpr absl::Duration kAcceptPause = absl::Milliseconds(50);
// What nobody wants is received in such pieces.
constexpr int64_t kScratchBytes = 64 << 10;

absl::Status CheckSizes(const control::PushBatch& batch, const std::vector<WholeBlock>& wholes,
                        uint64_t body_bytes) {
  uint64_t promised = 0;
  for (const WholeBlock& whole : wholes) promised += whole.size;
  for (const control::Data& data : batch.data()) {
    if (promised > body_bytes || data.size() < 0 ||
        static_cast<uint64_t>(data.size()) > body_bytes - promised) {
      return absl::DataLossError("a frame's parts do not fit its body");
    }
    if (data.size() > 0 && (data.has_error() || !data.segment().empty())) {
      return absl::DataLossError("a frame has bytes for a part that needs none");
    }
    promised += static_cast<uint64_t>(data.size());
  }
  if (promised == body_bytes) return absl::OkStatus();
  return absl::DataLossError("a frame's body is not as long as its parts");
}

}  // namespace

struct PeerServer::Stream {
  explicit Stream(FrameSource* frames) : source(*frames) {}
  // Bytes of a part that nobody wants.
  absl::Status Drop(int64_t size) {
    if (scratch == nullptr) scratch.reset(new char[kScratchBytes]);
    while (size > 0) {
      const auto now = std::min(size, kScratchBytes);
      RETURN_IF_ERROR(source.Body(scratch.get(), static_cast<size_t>(now)));
      size -= now;
    }
    return absl::OkStatus();
  }
  void Answer(TransferId transfer, int attempt, const TransferAssembler::Outcome& outcome) {
    if (!open.empty() && (outcome.complete || !outcome.refused.ok())) open.erase(transfer);
    if (outcome.complete) reply.add_done(transfer.value());
    if (outcome.refused.ok()) return;
    control::PushProblem* problem = reply.add_problems();
    problem->set_transfer(transfer.value());
    problem->set_attempt(attempt);
    problem->mutable_status()->set_code(static_cast<int>(outcome.refused.code()));
    problem->mutable_status()->set_message(std::string(outcome.refused.message()));
  }

  FrameSource& source;
  std::unique_ptr<char[]> scratch;
  // Of the frame at hand; kept, since new memory costs more.
  control::PushBatch batch;
  std::vector<WholeBlock> wholes;
  control::PushReply reply;
  // Transfers of which a part came and more is to come, with their attempts.
  absl::flat_hash_map<TransferId, int> open;
};

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
  FrameSource source(fd);
  absl::Status end = Greet(fd, source);
  if (end.ok()) {
    Stream stream(&source);
    end = ServeFrames(fd, stream);
    // The peer, should it live, begins them anew.
    for (const auto& [transfer, attempt] : stream.open) {
      options_.assembler().Abandon(transfer, attempt);
    }
  }
  if (!absl::IsOutOfRange(end)) {
    LOG(WARNING) << "a connection for transfers from " << net::PeerName(fd)
                 << " ended: " << end.message();
  }
  (void)::shutdown(fd, SHUT_RDWR);
  absl::MutexLock lock(&mu_);
  connection->over = true;
}

absl::Status PeerServer::Greet(int fd, FrameSource& source) {
  RETURN_IF_ERROR(net::SetTimeouts(fd, kGreetingMax, kGreetingMax));
  control::PushBatch hello;
  ASSIGN_OR_RETURN(const FrameHead head, source.Next(&hello));
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

absl::Status PeerServer::ServeFrames(int fd, Stream& stream) {
  while (true) {
    ASSIGN_OR_RETURN(const FrameHead head, stream.source.Next(&stream.batch, &stream.wholes));
    RETURN_IF_ERROR(CheckSizes(stream.batch, stream.wholes, head.body_bytes));
    stream.reply.Clear();
    if (!stream.wholes.empty()) RETURN_IF_ERROR(ReceiveWholes(stream));
    for (control::Data& data : *stream.batch.mutable_data()) {
      RETURN_IF_ERROR(ReceivePart(stream, data));
    }
    if (stream.reply.done_size() + stream.reply.problems_size() == 0) continue;
    RETURN_IF_ERROR(SendFrame(fd, stream.reply));
  }
}

absl::Status PeerServer::ReceiveWholes(Stream& stream) {
  std::vector<size_t> sizes;
  sizes.reserve(stream.wholes.size());
  for (const WholeBlock& whole : stream.wholes) sizes.push_back(whole.size);
  std::vector<std::shared_ptr<device::HostBlock>> blocks = device::HostBlock::AllocateAll(sizes);
  if (blocks.empty()) {
    RETURN_IF_ERROR(stream.Drop(std::accumulate(sizes.begin(), sizes.end(), int64_t{0})));
    blocks.resize(sizes.size());  // the assembler refuses them
  } else {
    std::vector<iovec> places;
    for (const auto& block : blocks) {
      char* const to = block->mutable_data();
      if (!places.empty() &&
          static_cast<char*>(places.back().iov_base) + places.back().iov_len == to) {
        places.back().iov_len += block->size();
      } else {
        places.push_back({to, block->size()});
      }
    }
    RETURN_IF_ERROR(stream.source.Body(absl::MakeSpan(places)));
  }
  std::vector<TransferAssembler::Whole> wholes(blocks.size());
  for (size_t i = 0; i < wholes.size(); ++i) {
    const WholeBlock& from = stream.wholes[i];
    wholes[i].transfer = TransferId(from.transfer);
    wholes[i].attempt = from.attempt;
    if (from.has_checksum != 0) wholes[i].checksum = from.checksum;
    wholes[i].bytes = std::move(blocks[i]);
  }
  const auto outcomes = options_.assembler().AddWholes(std::move(wholes));
  for (size_t i = 0; i < outcomes.size(); ++i) {
    const WholeBlock& from = stream.wholes[i];
    stream.Answer(TransferId(from.transfer), from.attempt, outcomes[i]);
  }
  return absl::OkStatus();
}

absl::Status PeerServer::ReceivePart(Stream& stream, control::Data& data) {
  const int64_t size = data.size();
  Chunk part = DecodeChunk(&data);
  const TransferId transfer = part.transfer;
  const int attempt = part.attempt;
  TransferAssembler& assembler = options_.assembler();
  if (!part.error.ok() || !part.segment.empty()) {
    stream.Answer(transfer, attempt, assembler.AddFromPeer(std::move(part)));
    return absl::OkStatus();
  }
  stream.open[transfer] = attempt;
  const TransferAssembler::Landing landing = assembler.BeginPart(part, size);
  if (landing.to != nullptr) {
    RETURN_IF_ERROR(stream.source.Body(landing.to, static_cast<size_t>(size)));
  } else {
    RETURN_IF_ERROR(stream.Drop(size));
  }
  stream.Answer(transfer, attempt, assembler.EndPart(part, size, landing));
  return absl::OkStatus();
}

}  // namespace causeway::worker
