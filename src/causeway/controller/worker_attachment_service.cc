// Writes an attachment's outbox to its streams, one message at a time on each.
#include <optional>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "causeway/base/limits.h"
#include "causeway/base/log.h"
#include "causeway/controller/data_chunk_codec.h"
#include "causeway/controller/worker_attachment.h"

namespace causeway::controller {

WorkerAttachment::WorkerAttachment(Timers& timers, Options options, WorkerReactor* attach,
                                   grpc::CallbackServerContext* context)
    : timers_(timers),
      options_(std::move(options)),
      mark_(SharedFolder::NewMark()),
      outbox_({.checksums = options_.checksums}) {
  attach_.reactor = attach;
  attach_.context = context;
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
  if (closing_ || attach_.broken) return;
  outbox_.PushCommand(std::move(command));
  Pump();
}

void WorkerAttachment::SendData(TransferId transfer, absl::StatusOr<absl::Cord> bytes) {
  absl::MutexLock lock(&mu_);
  if (closing_ || attach_.broken) return;
  if (bytes.ok()) {
    outbox_.PushData(transfer, *std::move(bytes));
  } else {
    outbox_.PushDataError(transfer, bytes.status());
  }
  Pump();
}

bool WorkerAttachment::SendFile(TransferId transfer, const SharedFile& file, int64_t offset,
                                int64_t bytes) {
  {
    absl::MutexLock lock(&mu_);
    if (!shares_memory_ || closing_ || attach_.broken) return false;
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
  return outbox_.queued_bytes() + attach_.in_flight + bulk_.in_flight;
}

std::string WorkerAttachment::close_reason() const {
  absl::MutexLock lock(&mu_);
  return close_reason_;
}

void WorkerAttachment::Admitted() {
  absl::MutexLock lock(&mu_);
  admitted_ = true;
  Pump();
}

bool WorkerAttachment::BulkCame(WorkerReactor* bulk, grpc::CallbackServerContext* context) {
  absl::MutexLock lock(&mu_);
  if (bulk_.reactor != nullptr || closing_ || attach_.broken) return false;
  bulk_ = Stream();
  bulk_.reactor = bulk;
  bulk_.context = context;
  Pump();
  return true;
}

void WorkerAttachment::Pump() {
  if (!admitted_) return;
  const int64_t queued = outbox_.queued_bytes();
  if (queued > limits::kWorkerQueueBytesMax && !closing_) {
    outbox_.Clear();
    CloseLocked(absl::StrCat("it does not take what is sent to it: ", queued,
                             " bytes are queued, at most ", limits::kWorkerQueueBytesMax,
                             " may be"));
    return;
  }
  const bool has_bulk = bulk_.reactor != nullptr && !bulk_.broken;
  if (attach_.reactor != nullptr && !attach_.writing && !attach_.broken) {
    Outbox::Batch batch = outbox_.NextForCommands(has_bulk);
    if (!batch.empty()) Write(attach_, std::move(batch));
  }
  if (has_bulk && !bulk_.writing) {
    Outbox::Batch batch = outbox_.NextForBulk();
    if (!batch.empty()) Write(bulk_, std::move(batch));
  }
  if (!closing_ || attach_.writing || bulk_.writing) return;
  const grpc::Status status(grpc::StatusCode::UNAVAILABLE, close_reason_);
  Finish(bulk_, status);
  Finish(attach_, status);
}

void WorkerAttachment::Write(Stream& stream, Outbox::Batch batch) {
  stream.message.Clear();
  stream.in_flight = 0;
  for (std::shared_ptr<const std::string>& command : batch) {
    stream.in_flight += static_cast<int64_t>(command->size());
    stream.message.add_commands(*command);
  }
  stream.writing = true;
  stream.reactor->StartWrite(&stream.message);
}

void WorkerAttachment::Wrote(Lane lane, bool ok) {
  absl::MutexLock lock(&mu_);
  Stream& s = stream(lane);
  s.writing = false;
  s.in_flight = 0;
  if (!ok) s.broken = true;  // the read side will hear of the end
  Pump();
}

void WorkerAttachment::Finish(Stream& stream, const grpc::Status& status) {
  if (stream.reactor == nullptr || stream.finished) return;
  stream.finished = true;
  stream.broken = true;
  stream.reactor->Finish(status);
}

void WorkerAttachment::End(Lane lane, const grpc::Status& status) {
  absl::MutexLock lock(&mu_);
  const bool lost = lane == Lane::kBulk && bulk_.context != nullptr && bulk_.context->IsCancelled();
  Finish(stream(lane), status);
  if (lane == Lane::kCommands) {
    outbox_.Clear();
    closing_ = true;
    Finish(bulk_, grpc::Status(grpc::StatusCode::UNAVAILABLE, "the control stream ended"));
  } else if (!closing_) {
    CloseLocked(lost ? "its connection was lost" : "it closed its bulk stream");
  }
}

void WorkerAttachment::CloseLocked(absl::string_view reason) {
  if (closing_) return;
  closing_ = true;
  close_reason_ = std::string(reason);
  // A worker that takes nothing would keep the streams open for ever.
  timers_.Schedule(absl::Milliseconds(limits::kServerGraceMs),
                   [weak = weak_from_this()] {
                     if (auto self = weak.lock()) self->CutOff();
                   });
  Pump();
}

void WorkerAttachment::CutOff() {
  absl::MutexLock lock(&mu_);
  for (Stream* s : {&attach_, &bulk_}) {
    if (s->reactor != nullptr) s->context->TryCancel();
  }
}

void WorkerAttachment::Gone(Lane lane) {
  absl::MutexLock lock(&mu_);
  Stream& s = stream(lane);
  s.reactor = nullptr;
  s.context = nullptr;
  s.writing = false;
  s.broken = true;
}

}  // namespace causeway::controller
