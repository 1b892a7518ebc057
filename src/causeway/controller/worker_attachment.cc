// Writes an attachment's outbox to its sockets.
#include "causeway/controller/worker_attachment.h"

#include <sys/socket.h>

#include <optional>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "causeway/base/limits.h"
#include "causeway/base/log.h"
#include "causeway/controller/data_chunk_codec.h"
#include "causeway/wire/control_codec.h"
#include "causeway/wire/control_frames.h"

namespace causeway::controller {

using wire::ControlFrame;

WorkerAttachment::WorkerAttachment(Timers& timers, Options options, net::EventLoop& commands,
                                   net::EventLoop& bulk, std::shared_ptr<CommandWriter> writer,
                                   std::shared_ptr<net::Socket> socket)
    : timers_(timers),
      options_(std::move(options)),
      writer_(std::move(writer)),
      mark_(SharedFolder::NewMark()),
      outbox_({.checksums = options_.checksums}) {
  attach_.loop = &commands;
  attach_.socket = std::move(socket);
  bulk_.loop = &bulk;
}

WorkerAttachment::~WorkerAttachment() {
  // A worker that died did not come to open all of them.
  if (options_.folder != nullptr) options_.folder->RemoveMarked(mark_);
}

void WorkerAttachment::SetWorkerMemory(const std::string& memory) {
  absl::MutexLock lock(&mu_);
  shares_memory_ =
      options_.folder != nullptr && !memory.empty() && memory == options_.memory;
}

WorkerAttachment::Stream& WorkerAttachment::stream(Lane lane) {
  return lane == Lane::kCommands ? attach_ : bulk_;
}

void WorkerAttachment::Send(std::shared_ptr<const std::string> command) {
  absl::MutexLock lock(&mu_);
  if (closing_ || attach_.socket == nullptr) return;
  outbox_.PushCommand(std::move(command));
  if (in_burst_) return;
  if (core::SendBurst* const burst = core::SendBurst::Current(); burst != nullptr) {
    in_burst_ = true;
    return burst->Add(shared_from_this());
  }
  PumpCommands();
}

void WorkerAttachment::WriteQueued() {
  absl::MutexLock lock(&mu_);
  in_burst_ = false;
  answered_ = false;  // before the write: the answer may come at once
  PumpCommands();
}

void WorkerAttachment::HandOver(CommandWriter::Links links) { writer_->Write(std::move(links)); }

void WorkerAttachment::SendSoon(std::shared_ptr<const std::string> command) {
  absl::MutexLock lock(&mu_);
  if (closing_ || attach_.socket == nullptr) return;
  outbox_.PushCommand(std::move(command));
  if (in_burst_ || std::exchange(soon_, true)) return;
  attach_.loop->PostSoon([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    absl::MutexLock lock(&self->mu_);
    self->soon_ = false;
    self->PumpCommands();
  });
}

void WorkerAttachment::SendData(TransferId transfer, absl::StatusOr<absl::Cord> bytes) {
  absl::MutexLock lock(&mu_);
  if (closing_ || attach_.socket == nullptr) return;
  if (bytes.ok()) {
    outbox_.PushData(transfer, *std::move(bytes));
  } else {
    outbox_.PushDataError(transfer, bytes.status());
  }
  PumpCommands();
  WakeBulk();
}

bool WorkerAttachment::SendFile(TransferId transfer, const SharedFile& file, int64_t offset,
                                int64_t bytes) {
  {
    absl::MutexLock lock(&mu_);
    if (!shares_memory_ || closing_ || attach_.socket == nullptr) return false;
  }
  const std::string name = options_.folder->NewName(mark_);
  if (absl::Status linked = file.Link(name); !linked.ok()) {
    LOG(WARNING) << "upload " << transfer << " takes the network instead of shared memory: "
                 << linked.message();
    return false;
  }
  std::optional<uint64_t> checksum;
  if (options_.checksums) {
    checksum = XXH3_64bits(file.data() + offset, static_cast<size_t>(bytes));
  }
  Send(EncodeDataFile(transfer, name, offset, bytes, checksum));
  return true;
}

void WorkerAttachment::Close(absl::string_view reason) {
  absl::MutexLock lock(&mu_);
  CloseLocked(reason);
}

int64_t WorkerAttachment::queued_bytes() const {
  absl::MutexLock lock(&mu_);
  return outbox_.queued_bytes() + attach_.writer.bytes() + bulk_.writer.bytes();
}

std::string WorkerAttachment::close_reason() const {
  absl::MutexLock lock(&mu_);
  return close_reason_;
}

void WorkerAttachment::Admitted() {
  absl::MutexLock lock(&mu_);
  admitted_ = true;
  PumpCommands();
}

bool WorkerAttachment::BulkCame(std::shared_ptr<net::Socket> socket) {
  absl::MutexLock lock(&mu_);
  if (closing_ || bulk_.socket != nullptr || attach_.socket == nullptr) return false;
  bulk_.socket = std::move(socket);
  WakeBulk();
  return true;
}

void WorkerAttachment::Writable(Lane lane) {
  absl::MutexLock lock(&mu_);
  Stream& s = stream(lane);
  if (s.socket == nullptr || !std::exchange(s.blocked, false)) return;
  s.loop->SetWritable(s.socket->fd(), false);
  lane == Lane::kCommands ? PumpCommands() : PumpBulk();
}

void WorkerAttachment::WakeBulk() {
  if (bulk_.socket == nullptr || bulk_.blocked || std::exchange(bulk_.pumping, true)) return;
  bulk_.loop->Post([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    absl::MutexLock lock(&self->mu_);
    self->bulk_.pumping = false;
    self->PumpBulk();
  });
}

void WorkerAttachment::PumpCommands() {
  if (!admitted_) return;
  const int64_t queued = outbox_.queued_bytes();
  if (queued > limits::kWorkerQueueBytesMax && !closing_) {
    outbox_.Clear();
    CloseLocked(absl::StrCat("it does not take what is sent to it: ", queued,
                             " bytes are queued, at most ", limits::kWorkerQueueBytesMax,
                             " may be"));
    return;
  }
  while (attach_.socket != nullptr && !attach_.blocked && !attach_.ended) {
    if (!Flush(attach_)) return;
    const Outbox::Batch batch = outbox_.NextForCommands(bulk_.socket != nullptr);
    if (batch.empty()) break;
    for (const auto& command : batch) attach_.writer.Add(Kind(ControlFrame::kMessage), command);
  }
  if (!closing_ || attach_.blocked || !outbox_.empty() || !bulk_.writer.empty()) return;
  const absl::Status end = absl::UnavailableError(close_reason_);
  End(bulk_, end);
  End(attach_, end);
}

void WorkerAttachment::PumpBulk() {
  if (!admitted_) return;
  while (bulk_.socket != nullptr && !bulk_.blocked && !bulk_.ended) {
    if (!Flush(bulk_)) return;
    const Outbox::Batch batch = outbox_.NextForBulk();
    if (batch.empty()) break;
    for (const auto& chunk : batch) bulk_.writer.Add(Kind(ControlFrame::kMessage), chunk);
  }
  if (closing_) PumpCommands();
}

bool WorkerAttachment::Flush(Stream& stream) {
  const absl::StatusOr<bool> all = stream.writer.Flush(stream.socket->fd());
  if (all.ok() && *all) return true;
  if (all.ok()) {
    stream.blocked = true;
    stream.loop->SetWritable(stream.socket->fd(), true);
    return false;
  }
  // Its reader will hear of the end.
  stream.writer.Clear();
  stream.socket = nullptr;
  return false;
}

void WorkerAttachment::End(Stream& stream, const absl::Status& status) {
  if (stream.socket == nullptr || std::exchange(stream.ended, true)) return;
  stream.writer.Add(Kind(ControlFrame::kEnd), wire::EncodeEnd(status));
  (void)stream.writer.Flush(stream.socket->fd());
  ::shutdown(stream.socket->fd(), SHUT_WR);
  stream.writer.Clear();
}

void WorkerAttachment::Ended(Lane lane, bool lost, const absl::Status& status) {
  absl::MutexLock lock(&mu_);
  Stream& over = stream(lane);
  if (!lost && !over.blocked) End(over, status);
  over.writer.Clear();
  over.socket = nullptr;
  if (lane == Lane::kCommands) {
    outbox_.Clear();
    closing_ = true;
    if (bulk_.socket != nullptr) {
      ::shutdown(bulk_.socket->fd(), SHUT_RDWR);
      bulk_.writer.Clear();
      bulk_.socket = nullptr;
    }
  } else if (!closing_) {
    CloseLocked(lost ? "its connection was lost" : "it closed its bulk stream");
  }
}

void WorkerAttachment::CloseLocked(absl::string_view reason) {
  if (closing_) return;
  closing_ = true;
  close_reason_ = std::string(reason);
  // A worker that takes nothing would keep the connections open for ever.
  timers_.Schedule(absl::Milliseconds(limits::kServerGraceMs),
                   [weak = weak_from_this()] {
                     if (auto self = weak.lock()) self->CutOff();
                   });
  WakeBulk();
  PumpCommands();
}

void WorkerAttachment::CutOff() {
  absl::MutexLock lock(&mu_);
  for (Stream* s : {&attach_, &bulk_}) {
    if (s->socket != nullptr) ::shutdown(s->socket->fd(), SHUT_RDWR);
  }
}

}  // namespace causeway::controller
