// What waits for one worker's network: ordered commands, and bulk bytes cut into chunks.
//
// Two lanes leave it. The command lane takes commands in batches, and bulk chunks too while the
// worker has no bulk stream; the bulk lane takes chunks only. A transfer leaves by the lane on which
// it began, so its chunks stay in order.
//
// Thread safety: none; the owner holds a lock.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "causeway/base/limits.h"
#include "causeway/base/strong_id.h"

namespace causeway::controller {

class Outbox {
 public:
  // One message to the worker: serialized Commands.
  using Batch = std::vector<std::shared_ptr<const std::string>>;
  struct Limits {
    int64_t batch_bytes = limits::kCommandBatchBytesMax;
    int64_t chunk_bytes = limits::kDataChunkBytes;
    bool checksums = false;  // chunks bear them
  };

  Outbox() : Outbox(Limits{}) {}
  explicit Outbox(const Limits& limits) : limits_(limits) {}

  void PushCommand(std::shared_ptr<const std::string> command);
  void PushData(TransferId transfer, absl::Cord bytes);
  void PushDataError(TransferId transfer, absl::Status error);

  // The next message of each lane; empty when there is nothing for it.
  Batch NextForCommands(bool has_bulk_stream);
  Batch NextForBulk();

  // Bytes pushed and not yet taken.
  int64_t queued_bytes() const { return queued_bytes_; }
  bool empty() const;
  void Clear();

 private:
  struct Transfer {
    TransferId id;
    absl::Cord rest;
    int64_t offset = 0;
    int64_t total = 0;
    absl::Status error;
  };
  // Cuts the next chunk off `lane`, beginning a waiting transfer when `lane` is idle.
  Batch NextChunk(std::optional<Transfer>& lane, bool may_begin);

  const Limits limits_;
  std::deque<std::shared_ptr<const std::string>> commands_;
  std::deque<Transfer> waiting_;
  std::optional<Transfer> on_commands_;
  std::optional<Transfer> on_bulk_;
  bool data_is_next_ = false;  // on the command lane, after a batch
  int64_t queued_bytes_ = 0;
};

}  // namespace causeway::controller
