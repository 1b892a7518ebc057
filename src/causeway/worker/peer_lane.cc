// Frames out, answers in.
#include "causeway/worker/peer_lane.h"

#include <sys/socket.h>

#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "causeway/base/limits.h"
#include "causeway/base/status_macros.h"
#include "causeway/worker/peer_frames.h"
#include "control.pb.h"

namespace causeway::worker {
namespace {

constexpr absl::Duration kConnectMax = absl::Seconds(10);
// Before a connection is tried again.
constexpr absl::Duration kReconnectPause = absl::Milliseconds(100);

absl::Status FromWire(const control::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.code()), status.message());
}

}  // namespace

PeerLane::PeerLane(PeerSender* sender, int index)
    : sender_(sender), index_(index), writer_([this] { Loop(); }) {}

PeerLane::~PeerLane() { writer_.join(); }

void PeerLane::Stop() {
  if (socket_) (void)::shutdown(socket_.fd(), SHUT_RDWR);
}

void PeerLane::Loop() {
  PeerSender& sender = *sender_;
  bool paused = false;
  while (true) {
    PeerSender::Work work;
    absl::Status status;
    {
      absl::MutexLock lock(&sender.mu_);
      auto ready = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(sender.mu_) {
        return sender.stop_ || over_ || sender.HasWork(index_);
      };
      sender.mu_.Await(absl::Condition(&ready));
      if (paused && !sender.stop_) {
        sender.mu_.AwaitWithTimeout(absl::Condition(&sender.stop_), kReconnectPause);
      }
      if (sender.stop_) break;
      if (over_) {
        status = why_over_;
      } else {
        work = sender.NextWork(index_);
      }
    }
    if (status.ok() && (work.batch != nullptr || work.item != nullptr)) {
      if (!socket_) status = Connect();
      if (status.ok()) status = Send(work);
    }
    paused = !status.ok();
    if (status.ok()) continue;
    Disconnect();
    sender.Broken(index_, status);
  }
  Disconnect();
  absl::MutexLock lock(&sender.mu_);
  ended_ = true;
}

absl::Status PeerLane::Connect() {
  PeerSender& sender = *sender_;
  ASSIGN_OR_RETURN(const net::Address address, net::ParseAddress(sender.options_.address));
  ASSIGN_OR_RETURN(net::Socket socket, net::Connect(address.host, address.port, kConnectMax));
  RETURN_IF_ERROR(net::SetTimeouts(socket.fd(), absl::Seconds(limits::kPushStallSecondsMax),
                                   absl::ZeroDuration()));
  control::PushBatch hello;
  hello.set_token(sender.options_.token);
  RETURN_IF_ERROR(SendFrame(socket.fd(), hello));
  const int fd = socket.fd();
  {
    absl::MutexLock lock(&sender.mu_);
    if (sender.stop_) return absl::CancelledError("the worker is ending");
    over_ = false;
    socket_ = std::move(socket);
  }
  sender.options_.stats->Count("push_connections");
  reader_ = std::thread([this, fd] { ReadReplies(fd); });
  return absl::OkStatus();
}

void PeerLane::Disconnect() {
  if (socket_) (void)::shutdown(socket_.fd(), SHUT_RDWR);
  if (reader_.joinable()) reader_.join();
  absl::MutexLock lock(&sender_->mu_);
  over_ = false;
  socket_ = net::Socket();
}

absl::Status PeerLane::Send(const PeerSender::Work& work) {
  return work.batch != nullptr ? SendBatch(work.batch) : SendPart(work);
}

absl::Status PeerLane::SendBatch(const PeerSender::BatchRef& batch) {
  PeerSender& sender = *sender_;
  control::PushBatch message;  // of what is no small block
  std::vector<WholeBlock> wholes;
  std::vector<iovec> body;
  wholes.reserve(batch->items.size());
  body.reserve(batch->items.size() + 1);  // and the frame's head
  for (PeerSender::Item& item : batch->items) {
    const int64_t size = item.size();
    if (item.bytes.ok() && !sender.TakesSegment(item)) {
      WholeBlock& whole = wholes.emplace_back();
      whole.transfer = item.transfer.value();
      whole.attempt = static_cast<uint16_t>(item.attempt);
      whole.size = static_cast<uint32_t>(size);
      const char* const bytes = (*item.bytes)->data();
      if (sender.options_.checksums) {
        whole.has_checksum = 1;
        whole.checksum = sender.Checksum(bytes, size);
      }
      if (size > 0) body.push_back({const_cast<char*>(bytes), static_cast<size_t>(size)});
      continue;
    }
    std::string segment;
    if (item.bytes.ok()) {
      segment = sender.HandSegment(batch, item);
      if (segment.empty()) continue;  // queued again, for the network
    }
    control::Data* data = message.add_data();
    data->set_transfer(item.transfer.value());
    data->set_attempt(item.attempt);
    data->set_total(size);
    if (!item.bytes.ok()) {
      data->mutable_error()->set_code(static_cast<int>(item.bytes.status().code()));
      data->mutable_error()->set_message(std::string(item.bytes.status().message()));
      continue;
    }
    data->set_segment(segment);
    if (!sender.options_.checksums) continue;
    data->set_has_checksum(true);
    data->set_checksum(sender.Checksum((*item.bytes)->data(), size));
  }
  if (message.data_size() == 0 && wholes.empty()) return absl::OkStatus();
  return SendFrame(socket_.fd(), message, std::move(body), wholes);
}

absl::Status PeerLane::SendPart(const PeerSender::Work& work) {
  PeerSender& sender = *sender_;
  control::PushBatch batch;
  control::Data* data = batch.add_data();
  data->set_transfer(work.item->transfer.value());
  data->set_attempt(work.attempt);
  data->set_total(work.item->size());
  data->set_offset(work.offset);
  data->set_size(work.size);
  const char* bytes = (*work.item->bytes)->data() + work.offset;
  if (sender.options_.checksums) {
    data->set_has_checksum(true);
    data->set_checksum(sender.Checksum(bytes, work.size));
  }
  return SendFrame(socket_.fd(), batch,
                   {{const_cast<char*>(bytes), static_cast<size_t>(work.size)}});
}

void PeerLane::ReadReplies(int fd) {
  PeerSender& sender = *sender_;
  FrameSource source(fd);
  control::PushReply reply;
  absl::Status end;
  while (true) {
    end = source.Next(&reply).status();
    if (end.ok() && reply.has_refused()) end = FromWire(reply.refused());
    if (!end.ok()) break;
    if (reply.done_size() > 0) sender.Confirmed(reply.done());
    for (const control::PushProblem& problem : reply.problems()) {
      sender.Refused(TransferId(problem.transfer()), problem.attempt(),
                     FromWire(problem.status()));
    }
  }
  absl::MutexLock lock(&sender.mu_);
  over_ = true;
  why_over_ = end;
}

}  // namespace causeway::worker
