// Batching of commands and cutting of transfers.
#include "causeway/controller/outbox.h"

#include <algorithm>
#include <utility>

#include "causeway/controller/data_chunk_codec.h"

namespace causeway::controller {

void Outbox::PushCommand(std::shared_ptr<const std::string> command) {
  queued_bytes_ += static_cast<int64_t>(command->size());
  commands_.push_back(std::move(command));
}

void Outbox::PushData(TransferId transfer, absl::Cord bytes) {
  const auto total = static_cast<int64_t>(bytes.size());
  queued_bytes_ += total;
  waiting_.push_back(Transfer{transfer, std::move(bytes), 0, total, absl::OkStatus()});
}

void Outbox::PushDataError(TransferId transfer, absl::Status error) {
  waiting_.push_back(Transfer{transfer, absl::Cord(), 0, 0, std::move(error)});
}

Outbox::Batch Outbox::NextForCommands(bool has_bulk_stream) {
  const bool data = on_commands_.has_value() || (!has_bulk_stream && !waiting_.empty());
  // Turn by turn, so that neither starves the other while they share the stream.
  if (data && (data_is_next_ || commands_.empty())) {
    data_is_next_ = false;
    return NextChunk(on_commands_, !has_bulk_stream);
  }
  Batch batch;
  int64_t bytes = 0;
  while (!commands_.empty()) {
    const auto size = static_cast<int64_t>(commands_.front()->size());
    if (!batch.empty() && bytes + size > limits_.batch_bytes) break;
    bytes += size;
    batch.push_back(std::move(commands_.front()));
    commands_.pop_front();
  }
  queued_bytes_ -= bytes;
  data_is_next_ = true;
  return batch;
}

Outbox::Batch Outbox::NextForBulk() { return NextChunk(on_bulk_, true); }

Outbox::Batch Outbox::NextChunk(std::optional<Transfer>& lane, bool may_begin) {
  if (!lane.has_value()) {
    if (!may_begin || waiting_.empty()) return {};
    lane = std::move(waiting_.front());
    waiting_.pop_front();
  }
  Batch batch;
  if (!lane->error.ok()) {
    batch.push_back(EncodeDataError(lane->id, lane->error));
    lane.reset();
    return batch;
  }
  const auto size = std::min(limits_.chunk_bytes, static_cast<int64_t>(lane->rest.size()));
  batch.push_back(EncodeDataChunk(lane->id, lane->offset, lane->total,
                                  lane->rest.Subcord(0, static_cast<size_t>(size)),
                                  limits_.checksums));
  lane->rest.RemovePrefix(static_cast<size_t>(size));
  lane->offset += size;
  queued_bytes_ -= size;
  if (lane->rest.empty()) lane.reset();
  return batch;
}

bool Outbox::empty() const {
  return commands_.empty() && waiting_.empty() && !on_commands_.has_value() &&
         !on_bulk_.has_value();
}

void Outbox::Clear() {
  commands_.clear();
  waiting_.clear();
  on_commands_.reset();
  on_bulk_.reset();
  queued_bytes_ = 0;
}

}  // namespace causeway::controller
