// Builds: transfers that arrive, pieces that are put together in host memory, new arrays.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/check.h"
#include "causeway/base/log.h"
#include "causeway/base/probes.h"
#include "causeway/base/status_macros.h"
#include "causeway/model/dtype.h"
#include "causeway/model/host_copy.h"
#include "causeway/wire/text_array.h"
#include "causeway/worker/op_graph.h"

namespace causeway::worker {

// One Build between its command and its array.
struct OpGraph::BuildState {
  worker::Build build;
  ValueRef output;
  std::vector<ValueRef> refs;       // by shard: alias, copy or transfer; null otherwise
  std::vector<std::vector<ValueRef>> piece_values;      // by shard and piece
  std::vector<std::vector<device::HostShard>> piece_shards;  // of local parts: the whole shard
  int copies_left = 0;
  absl::Status status;
};

namespace {

int64_t Elements(const std::vector<int64_t>& dims) {
  int64_t n = 1;
  for (const int64_t d : dims) n *= d;
  return n;
}

absl::Status CheckBox(const std::vector<int64_t>& start, const std::vector<int64_t>& dims,
                      const std::vector<int64_t>& whole) {
  bool fits = start.size() == whole.size() && dims.size() == whole.size();
  for (size_t i = 0; fits && i < whole.size(); ++i) {
    fits = start[i] >= 0 && start[i] <= whole[i] && dims[i] >= 0 && dims[i] <= whole[i] - start[i];
  }
  return fits ? absl::OkStatus()
              : absl::InvalidArgumentError("a piece does not lie inside its shard");
}

}  // namespace

void OpGraph::Run(worker::Build build) {
  auto state = std::make_shared<BuildState>();
  std::vector<ValueRef> reads;
  auto read = [&reads](ValueRef value) {
    reads.push_back(value);
    return value;
  };
  // One transfer may feed several shards; it is claimed once.
  absl::flat_hash_map<TransferId, ValueRef> claims;
  auto claim = [this, &claims](TransferId id) {
    ValueRef& value = claims[id];
    if (value == nullptr) value = ClaimTransfer(id);
    return value;
  };
  for (const ShardBuild& shard : build.shards) {
    ValueRef ref;
    std::vector<ValueRef> pieces;
    switch (shard.kind) {
      case ShardBuild::Kind::kAlias:
      case ShardBuild::Kind::kCopy:
        ref = read(Find(shard.buffer));
        break;
      case ShardBuild::Kind::kTransfer:
        ref = read(claim(shard.transfer));
        break;
      case ShardBuild::Kind::kPieces:
        for (const Piece& piece : shard.pieces) {
          pieces.push_back(
              read(piece.transfer != TransferId(0) ? claim(piece.transfer) : Find(piece.buffer)));
        }
        break;
      case ShardBuild::Kind::kInline:
        break;
    }
    state->refs.push_back(std::move(ref));
    state->piece_shards.emplace_back(pieces.size());
    state->piece_values.push_back(std::move(pieces));
  }
  state->output = NewOutput(build.buffer);
  for (const auto& [id, value] : claims) {
    if (value->pending()) state->output->awaits.push_back(id);
  }
  std::sort(state->output->awaits.begin(), state->output->awaits.end());
  state->build = std::move(build);
  Submit(reads, [this, state] { StartBuild(state); });
  Pump();
}

void OpGraph::StartBuild(std::shared_ptr<BuildState> state) {
  state->copies_left = 1;
  for (size_t s = 0; s < state->build.shards.size(); ++s) {
    if (state->refs[s] != nullptr) state->status.Update(state->refs[s]->error);
    for (size_t p = 0; p < state->piece_values[s].size(); ++p) {
      const ValueRef& value = state->piece_values[s][p];
      state->status.Update(value->error);
      const Piece& piece = state->build.shards[s].pieces[p];
      if (piece.transfer != TransferId(0) || !state->status.ok()) continue;
      auto copy = device_->StartHostCopy(value->array, piece.device);
      if (!copy.ok()) {
        state->status.Update(copy.status());
        continue;
      }
      ++state->copies_left;
      host_->AwaitBytes(*std::move(copy), [this, state, s,
                                           p](absl::StatusOr<device::HostShard> shard) {
        host_->Post([this, state, s, p, shard = std::move(shard)]() mutable {
          state->status.Update(shard.status());
          if (shard.ok()) state->piece_shards[s][p] = *std::move(shard);
          if (--state->copies_left == 0) FinishBuild(*state);
        });
      });
    }
  }
  if (--state->copies_left == 0) FinishBuild(*state);
}

void OpGraph::FinishBuild(BuildState& state) {
  if (state.status.ok()) {
    for (const ValueRef& ref : state.refs) {
      if (ref != nullptr) state.output->after = std::max(state.output->after, ref->after);
    }
    Resolve(state.output, MakeArray(state));
  } else {
    Resolve(state.output, state.status);
  }
  Pump();
}

absl::StatusOr<device::HostBytes> OpGraph::JoinTextPieces(const BuildState& state, size_t s) {
  const ShardBuild& shard = state.build.shards[s];
  std::vector<std::pair<model::Box, std::string>> parts;
  for (size_t p = 0; p < shard.pieces.size(); ++p) {
    const Piece& piece = shard.pieces[p];
    RETURN_IF_ERROR(CheckBox(piece.start, piece.dims, shard.dims));
    auto box_at = [&piece](const std::vector<int64_t>& start) {
      model::Box box{start, start};
      for (size_t d = 0; d < piece.dims.size(); ++d) box.limit[d] += piece.dims[d];
      return box;
    };
    std::string part;
    if (piece.transfer != TransferId(0)) {
      const device::HostBytes& bytes = state.piece_values[s][p]->bytes;
      part.assign(bytes->data(), bytes->size());
    } else {
      const device::HostShard& whole = state.piece_shards[s][p];
      RETURN_IF_ERROR(CheckBox(piece.source_start, piece.dims, whole.dims));
      ASSIGN_OR_RETURN(part, wire::CutText({whole.bytes->data(), whole.bytes->size()}, whole.dims,
                                           box_at(piece.source_start)));
    }
    parts.emplace_back(box_at(piece.start), std::move(part));
  }
  ASSIGN_OR_RETURN(std::string joined, wire::JoinText(shard.dims, parts));
  return device::HostBlock::FromString(std::move(joined));
}

absl::StatusOr<device::ArrayRef> OpGraph::MakeArray(BuildState& state) {
  const auto dtype = static_cast<model::DType>(state.build.dtype);
  const int64_t width = model::HostByteWidth(dtype);
  device::BuildRequest request;
  request.dtype = state.build.dtype;
  request.memory_kind = state.build.memory_kind;
  for (size_t s = 0; s < state.build.shards.size(); ++s) {
    ShardBuild& from = state.build.shards[s];
    device::ShardSource to;
    to.device = from.device;
    to.dims = from.dims;
    RETURN_IF_ERROR(model::CheckShape(from.dims));
    const int64_t dense_bytes = Elements(from.dims) * width;
    if (from.kind == ShardBuild::Kind::kAlias || from.kind == ShardBuild::Kind::kCopy) {
      to.kind = from.kind == ShardBuild::Kind::kAlias ? device::ShardSource::Kind::kAlias
                                                      : device::ShardSource::Kind::kCopy;
      ASSIGN_OR_RETURN(to.source, Use(*state.refs[s]));
      to.source_device = from.source_device;
      request.shards.push_back(std::move(to));
      continue;
    }
    if (from.kind == ShardBuild::Kind::kInline) {
      to.bytes = std::move(from.bytes);
      to.byte_strides = std::move(from.byte_strides);
    } else if (from.kind == ShardBuild::Kind::kTransfer) {
      to.bytes = state.refs[s]->bytes;
      to.byte_strides = state.refs[s]->byte_strides;
    } else if (width < 0) {
      ASSIGN_OR_RETURN(to.bytes, JoinTextPieces(state, s));
    } else {
      auto block = device::HostBlock::Allocate(static_cast<size_t>(dense_bytes));
      if (block == nullptr) {
        return absl::ResourceExhaustedError(
            absl::StrCat("no host memory for a shard of ", dense_bytes, " bytes"));
      }
      const std::vector<int64_t> target_strides = model::DenseStrides(from.dims, width);
      for (size_t p = 0; p < from.pieces.size(); ++p) {
        const Piece& piece = from.pieces[p];
        RETURN_IF_ERROR(CheckBox(piece.start, piece.dims, from.dims));
        char* target =
            block->mutable_data() + model::ByteOffset(piece.start, target_strides);
        const bool arrived = piece.transfer != TransferId(0);
        const device::HostBytes& bytes =
            arrived ? state.piece_values[s][p]->bytes : state.piece_shards[s][p].bytes;
        std::vector<int64_t> source_strides = model::DenseStrides(piece.dims, width);
        const char* source = bytes->data();
        int64_t needed = Elements(piece.dims) * width;
        if (!arrived) {
          const std::vector<int64_t>& dims = state.piece_shards[s][p].dims;
          RETURN_IF_ERROR(CheckBox(piece.source_start, piece.dims, dims));
          source_strides = model::DenseStrides(dims, width);
          source += model::ByteOffset(piece.source_start, source_strides);
          needed = Elements(dims) * width;
        }
        if (static_cast<int64_t>(bytes->size()) != needed) {
          return absl::InvalidArgumentError(absl::StrCat(
              "a piece has ", bytes->size(), " bytes where ", needed, " were to come"));
        }
        model::CopyStrided(piece.dims, width, source, source_strides, target, target_strides);
      }
      to.bytes = std::move(block);
    }
    // The size of text is what it is; whoever looks into it checks its count.
    int64_t needed = std::max<int64_t>(0, dense_bytes);
    if (width >= 0 && !to.byte_strides.empty()) {
      ASSIGN_OR_RETURN(needed, model::SpannedBytes(from.dims, to.byte_strides, width));
    }
    if (static_cast<int64_t>(to.bytes->size()) < needed) {
      return absl::InvalidArgumentError(absl::StrCat("a shard has ", to.bytes->size(),
                                                     " bytes where ", needed, " are needed"));
    }
    request.shards.push_back(std::move(to));
  }
  return device_->Build(request);
}

// ---------------------------------------------------------------- transfers

ValueRef OpGraph::ClaimTransfer(TransferId id) {
  ValueRef& value = transfers_[id];
  if (value == nullptr) {
    value = std::make_shared<Value>();
    value->deadline = host_->Now() + options_.transfer_timeout;
  }
  ValueRef claimed = value;
  claimed->claimed = true;
  if (!claimed->pending()) {
    if (claimed->bytes != nullptr) {
      unclaimed_bytes_ -= static_cast<int64_t>(claimed->bytes->size());
    }
    transfers_.erase(id);
  }
  return claimed;
}

void OpGraph::TransferArrived(TransferId id, absl::StatusOr<device::HostBytes> bytes,
                              std::vector<int64_t> byte_strides) {
  ValueRef& slot = transfers_[id];
  const bool wanted = slot != nullptr && slot->claimed;
  if (slot != nullptr && !slot->pending()) {
    LOG(WARNING) << "transfer " << id << " arrived twice; the second one is dropped";
    return;
  }
  if (slot == nullptr) slot = std::make_shared<Value>();
  ValueRef value = slot;
  value->deadline = host_->Now() + options_.transfer_timeout;
  if (bytes.ok()) {
    value->state = Value::State::kReady;
    value->bytes = *std::move(bytes);
    value->byte_strides = std::move(byte_strides);
  } else {
    value->state = Value::State::kError;
    value->error = bytes.status();
  }
  if (wanted) {
    REACHED("graph.build_waited_for_transfer");
    transfers_.erase(id);
    Settle(value);
    Pump();
    return;
  }
  // Those that were claimed or given up meanwhile need no place in the line.
  while (!unclaimed_.empty() && !transfers_.contains(unclaimed_.front())) unclaimed_.pop_front();
  unclaimed_.push_back(id);
  if (value->bytes != nullptr) unclaimed_bytes_ += static_cast<int64_t>(value->bytes->size());
  // Too much that nobody asked for yet: the oldest goes, and its Build will be told.
  while (unclaimed_bytes_ > options_.max_unclaimed_bytes && unclaimed_.size() > 1) {
    const auto it = transfers_.find(unclaimed_.front());
    unclaimed_.pop_front();
    if (it == transfers_.end() || it->second->claimed || it->second->bytes == nullptr) continue;
    unclaimed_bytes_ -= static_cast<int64_t>(it->second->bytes->size());
    it->second->bytes = nullptr;
    it->second->state = Value::State::kError;
    it->second->error = absl::ResourceExhaustedError(absl::StrCat(
        "worker ", options_.worker, " held more than ", options_.max_unclaimed_bytes,
        " bytes of transfers before they were wanted; send less ahead"));
  }
}

void OpGraph::Tick() {
  const absl::Time now = host_->Now();
  std::vector<TransferId> overdue;
  for (const auto& [id, value] : transfers_) {
    if (value->deadline < now) overdue.push_back(id);
  }
  std::sort(overdue.begin(), overdue.end());
  for (const TransferId id : overdue) {
    GiveUp(id, absl::DeadlineExceededError(
                   absl::StrCat("transfer ", id.value(), " did not arrive at worker ",
                                options_.worker, " within ",
                                absl::FormatDuration(options_.transfer_timeout))));
  }
  if (!overdue.empty()) Pump();
}

void OpGraph::GiveUp(TransferId id, absl::Status cause) {
  const auto it = transfers_.find(id);
  if (it == transfers_.end()) return;
  ValueRef value = std::move(it->second);
  transfers_.erase(it);
  if (!value->pending()) {
    if (value->bytes != nullptr) unclaimed_bytes_ -= static_cast<int64_t>(value->bytes->size());
    return;
  }
  value->state = Value::State::kError;
  value->error = std::move(cause);
  Settle(value);
}

void OpGraph::Run(const FailTransfer& fail) {
  // It may have arrived all the same, when only its confirmation was lost.
  const auto it = transfers_.find(fail.transfer);
  if (it == transfers_.end() || !it->second->pending()) return;
  GiveUp(fail.transfer, fail.cause);
  Pump();
}

void OpGraph::Run(const FailTransfers& fail) {
  if (PLANTED("graph.transfers_wait_for_the_dead")) return;
  // A transfer's id names its sender: worker + 1 above 48 bits, 0 for the head.
  const uint64_t sender = static_cast<uint64_t>(fail.from.value()) + 1;
  std::vector<TransferId> lost;
  for (const auto& [id, value] : transfers_) {
    if (id.value() >> 48 == sender && value->pending()) lost.push_back(id);
  }
  std::sort(lost.begin(), lost.end());
  if (!lost.empty()) REACHED("graph.transfers_of_a_lost_worker");
  for (const TransferId id : lost) GiveUp(id, fail.cause);
  Pump();
}

}  // namespace causeway::worker
