// Dependencies between commands: parking, waking, freeing, epochs.
#include "causeway/worker/op_graph.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/check.h"
#include "causeway/base/log.h"
#include "causeway/base/probes.h"
#include "causeway/base/status_macros.h"
#include "causeway/model/host_copy.h"
#include "causeway/wire/text_array.h"

namespace causeway::worker {
namespace {

ValueRef ErrorValue(absl::Status error) {
  auto value = std::make_shared<Value>();
  value->state = Value::State::kError;
  value->error = std::move(error);
  return value;
}

// The bytes that a Send asks for: the whole shard or a dense box of it.
absl::StatusOr<device::HostBytes> BoxOf(absl::StatusOr<device::HostShard> shard,
                                        const Send& send) {
  RETURN_IF_ERROR(shard.status());
  if (send.whole) return std::move(shard->bytes);
  if (shard->element_bytes == 0) {
    model::Box box{send.start, send.start};
    if (send.dims.size() != send.start.size()) {
      return absl::InvalidArgumentError("the box to send has two ranks");
    }
    for (size_t d = 0; d < send.dims.size(); ++d) box.limit[d] += send.dims[d];
    ASSIGN_OR_RETURN(std::string cut,
                     wire::CutText({shard->bytes->data(), shard->bytes->size()}, shard->dims, box));
    return device::HostBlock::FromString(std::move(cut));
  }
  const std::vector<int64_t> source_strides =
      model::DenseStrides(shard->dims, shard->element_bytes);
  bool fits = send.start.size() == shard->dims.size() && send.dims.size() == shard->dims.size();
  int64_t bytes = shard->element_bytes;
  for (size_t i = 0; fits && i < send.dims.size(); ++i) {
    fits = send.start[i] >= 0 && send.start[i] <= shard->dims[i] && send.dims[i] >= 0 &&
           send.dims[i] <= shard->dims[i] - send.start[i];
    if (fits) bytes *= send.dims[i];
  }
  if (!fits) return absl::InvalidArgumentError("the box to send does not lie inside its shard");
  auto block = device::HostBlock::Allocate(static_cast<size_t>(bytes));
  if (block == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no host memory for ", bytes, " bytes"));
  }
  if (bytes > 0) {
    model::CopyStrided(send.dims, shard->element_bytes,
                       shard->bytes->data() + model::ByteOffset(send.start, source_strides),
                       source_strides, block->mutable_data(),
                       model::DenseStrides(send.dims, shard->element_bytes));
  }
  return device::HostBytes(std::move(block));
}

}  // namespace

OpGraph::OpGraph(device::Device* device, GraphHost* host, LaunchLedger* ledger,
                 GraphOptions options)
    : device_(device), host_(host), ledger_(ledger), options_(std::move(options)) {
  CHECK_GT(options_.devices_per_host, 0);
  inflight_.assign(static_cast<size_t>(options_.devices_per_host), 0);
}

// ---------------------------------------------------------------- dependencies

ValueRef OpGraph::Find(BufferId id) const {
  const auto it = buffers_.find(id);
  if (it != buffers_.end()) return it->second;
  return ErrorValue(absl::FailedPreconditionError(absl::StrCat(
      "buffer ", id.value(), " is not on worker ", options_.worker,
      "; it was freed or never sent there")));
}

ValueRef OpGraph::NewOutput(BufferId id) {
  auto value = std::make_shared<Value>();
  buffers_[id] = value;
  return value;
}

OperationRef OpGraph::MakeOperation(absl::Span<const ValueRef> reads, bool exclusive) {
  auto operation = std::make_shared<Operation>();
  for (const ValueRef& value : reads) {
    if (value->pending()) {
      value->waiters.push_back(operation);
      ++operation->blockers;
    }
    if (!exclusive) continue;
    for (const OperationRef& reader : value->readers) Precede(reader, operation);
  }
  return operation;
}

void OpGraph::Precede(const OperationRef& first, const OperationRef& then) {
  if (first->done) return;
  // Arguments that are read together have the same readers: one edge will do.
  if (!first->successors.empty() && first->successors.back() == then) return;
  first->successors.push_back(then);
  ++then->blockers;
  ++edges_;
}

OperationRef OpGraph::Submit(absl::Span<const ValueRef> reads, absl::AnyInvocable<void()> run) {
  const bool waits =
      std::any_of(reads.begin(), reads.end(), [](const ValueRef& v) { return v->pending(); });
  if (!waits) {
    run();
    return nullptr;
  }
  OperationRef operation = MakeOperation(reads, /*exclusive=*/false);
  for (const ValueRef& value : reads) value->readers.push_back(operation);
  operation->run = [this, operation, run = std::move(run)]() mutable {
    run();
    Finish(*operation);
  };
  return operation;
}

void OpGraph::Unblock(const OperationRef& operation) {
  CHECK_GT(operation->blockers, 0);
  if (--operation->blockers == 0) runnable_.push_back(operation);
}

void OpGraph::Finish(Operation& operation) {
  operation.done = true;
  for (const OperationRef& next : std::exchange(operation.successors, {})) Unblock(next);
}

void OpGraph::Drop(Operation& operation) {
  if (operation.blockers == 0) {
    Finish(operation);
    return;
  }
  // Later launches wait for this one in place of those it waits for.
  operation.run = [this, &operation] { Finish(operation); };
}

void OpGraph::Settle(const ValueRef& value) {
  CHECK(!value->pending());
  for (const OperationRef& waiter : std::exchange(value->waiters, {})) Unblock(waiter);
  auto& readers = value->readers;
  readers.erase(std::remove_if(readers.begin(), readers.end(),
                               [](const OperationRef& o) { return o->done; }),
                readers.end());
}

void OpGraph::Resolve(const ValueRef& value, absl::StatusOr<device::ArrayRef> array) {
  CHECK(value->pending());
  if (array.ok()) {
    value->state = Value::State::kReady;
    value->array = *std::move(array);
    value->epoch = epoch_;
  } else {
    value->state = Value::State::kError;
    value->error = std::move(array).status();
  }
  Settle(value);
}

void OpGraph::Pump() {
  if (pumping_) return;
  pumping_ = true;
  while (true) {
    if (!runnable_.empty()) {
      OperationRef operation = std::move(runnable_.front());
      runnable_.pop_front();
      // The closure refers to its operation: moved out, the circle is open again.
      auto run = std::move(operation->run);
      if (run) run();
      continue;
    }
    if (!multi_queue_.empty()) {
      PendingLaunchRef front = multi_queue_.front();
      const bool blocked = front->operation != nullptr && front->operation->blockers > 0;
      if (front->dropped || (!blocked && HasRoom(*front) && Meets(*front))) {
        multi_queue_.pop_front();
        if (!front->dropped) Issue(*front);
        continue;
      }
    }
    if (!local_ready_.empty() && HasRoom(*local_ready_.front())) {
      PendingLaunchRef front = std::move(local_ready_.front());
      local_ready_.pop_front();
      Issue(*front);
      continue;
    }
    break;
  }
  pumping_ = false;
}

// ---------------------------------------------------------------- reading

void OpGraph::Run(Send send) {
  ValueRef value = Find(send.buffer);
  OperationRef parked = Submit({value}, [this, value, send = std::move(send), life = life_] {
    ReadShard(value, send.device,
              [this, send, life](absl::StatusOr<device::HostShard> shard) {
                // Transfers of another life may have the same numbers.
                if (life != life_) return;
                host_->Push(send.to, send.transfer, BoxOf(std::move(shard), send));
              });
  });
  if (parked != nullptr) {
    // Forgets the done ones whenever the list would grow.
    if (parked_sends_.size() == parked_sends_.capacity()) {
      std::erase_if(parked_sends_, [](const OperationRef& o) { return o->done; });
    }
    parked_sends_.push_back(std::move(parked));
  }
  Pump();
}

void OpGraph::Run(AwaitReady await) {
  std::vector<ValueRef> values;
  for (const BufferId id : await.buffers) values.push_back(Find(id));
  Submit(values, [this, values, request = await.request] {
    struct Shared {
      int left = 1;
      absl::Status status;
    };
    auto shared = std::make_shared<Shared>();
    // Runs on the graph's thread only.
    auto one_done = [this, shared, request](const absl::Status& status) {
      shared->status.Update(status);
      if (--shared->left == 0) {
        host_->Emit(Reply{.request = request, .status = shared->status});
      }
    };
    std::vector<device::ArrayRef> arrays;
    for (const ValueRef& value : values) {
      if (!value->error.ok()) {
        shared->status.Update(value->error);
      } else if (value->producer != nullptr && value->producer->done) {
        shared->status.Update(value->producer->status);
      } else if (value->producer != nullptr) {
        ++shared->left;
        value->producer->waiters.push_back(one_done);
      } else {
        arrays.push_back(value->array);
      }
    }
    if (!arrays.empty()) {
      ++shared->left;
      host_->AwaitArrays(std::move(arrays), [this, one_done](absl::Status status) {
        host_->Post([one_done, status] { one_done(status); });
      });
    }
    one_done(absl::OkStatus());
  });
  Pump();
}

// ---------------------------------------------------------------- tables

void OpGraph::Run(LoadProgram load) {
  programs_[load.program] =
      std::make_shared<const device::ProgramSource>(std::move(load.source));
}

void OpGraph::Run(DropProgram drop) { programs_.erase(drop.program); }

std::shared_ptr<const device::ProgramSource> OpGraph::FindProgram(ProgramId id) const {
  const auto it = programs_.find(id);
  return it == programs_.end() ? nullptr : it->second;
}

void OpGraph::Run(Bind bind) {
  auto binding = std::make_shared<Binding>();
  binding->source = FindProgram(bind.program);
  for (const int32_t device : bind.devices) {
    if (device >= 0 && device / options_.devices_per_host == options_.worker) {
      binding->ordinals.push_back(device % options_.devices_per_host);
    }
  }
  binding->bind = std::move(bind);
  bindings_[binding->bind.binding] = binding;
  if (binding->source != nullptr && binding->source->kind != 0) {
    BindHost(*binding);
    return;
  }
  // Loaded ahead, so that the first launch finds it ready; an error shows at the launch.
  if (binding->source != nullptr && epoch_ != EpochId(0) && !FAULT_POINT("graph.load_late")) {
    const absl::Status loaded = EnsureLoaded(*binding);
    if (!loaded.ok()) LOG(DEBUG) << "binding not loaded yet: " << loaded;
  }
}

void OpGraph::Run(Unbind unbind) {
  const auto it = bindings_.find(unbind.binding);
  if (it == bindings_.end()) return;
  if (it->second->host != nullptr) UnbindHost(it->second->host);
  bindings_.erase(it);
}

void OpGraph::Run(const Free& free) {
  for (const BufferId id : free.buffers) buffers_.erase(id);
}

void OpGraph::Run(const SetNodes& nodes) {
  if (nodes.epoch != epoch_) return;
  // What was loaded ahead for a worker's older life would wait for a node that is gone.
  auto node_of = [](const std::vector<int32_t>& of, size_t worker) {
    return worker < of.size() ? of[worker] : 0;
  };
  for (auto& [id, binding] : bindings_) {
    for (const int32_t device : binding->bind.devices) {
      const auto worker = static_cast<size_t>(device / options_.devices_per_host);
      if (node_of(nodes_, worker) == node_of(nodes.nodes.nodes, worker)) continue;
      REACHED("graph.binding_of_an_older_node");
      binding->loaded = nullptr;
      break;
    }
  }
  nodes_ = nodes.nodes.nodes;
}

OpGraph::Stats OpGraph::stats() const {
  Stats stats;
  stats.buffers = static_cast<int64_t>(buffers_.size());
  for (const auto& [id, value] : buffers_) {
    if (value->array != nullptr) stats.buffer_bytes += value->array->bytes();
  }
  stats.loads = loads_;
  stats.edges = edges_;
  stats.launches = launches_;
  stats.parked_launches = static_cast<int>(multi_queue_.size() + local_ready_.size());
  stats.transfers = static_cast<int>(transfers_.size());
  return stats;
}

void OpGraph::Reset(int worker) {
  const absl::Status forgotten = absl::DataLossError("the head forgot this worker");
  ++life_;  // from here on nobody hears what ends
  // What waits for a transfer and the transfer hold each other: cleared away alone, they would stay
  // for ever, with all bytes that arrived.
  std::vector<TransferId> open;
  for (const auto& [id, value] : transfers_) {
    if (value->pending()) open.push_back(id);
  }
  std::sort(open.begin(), open.end());
  for (const TransferId id : open) GiveUp(id, forgotten);
  DropParkedLaunches(EpochId(~uint64_t{0}), forgotten);
  for (const std::shared_ptr<LaunchRecord>& record : std::vector(holding_)) {
    ReleaseHeld(record, forgotten);
  }
  issued_.clear();
  ForgetHostLaunches(forgotten);
  options_.worker = worker;
  buffers_.clear();
  transfers_.clear();
  unclaimed_.clear();
  unclaimed_bytes_ = 0;
  programs_.clear();
  for (auto& [id, binding] : bindings_) {
    if (binding->host != nullptr) UnbindHost(binding->host);
  }
  bindings_.clear();
  swapped_ = nullptr;
  parked_sends_.clear();
  last_queued_ = {};
  epoch_ = EpochId(0);
}

// ---------------------------------------------------------------- epochs

void OpGraph::CloseEpochs(EpochId next) {
  const EpochId last(next.value() - 1);
  absl::Status cause = ledger_->Verdict(last);
  if (cause.ok()) {
    cause = absl::DataLossError(
        absl::StrCat("epoch ", last.value(), " ended before the program ran; run it again"));
  }
  // From here on nothing older is admitted, even where the head sent no abort.
  ledger_->Abort(last, cause);
  DropParkedLaunches(last, cause);
}

EpochOpened OpGraph::OpenEpoch(const worker::OpenEpoch& open, const device::EpochSpec& spec) {
  EpochOpened opened;
  opened.epoch = open.epoch;
  const absl::Time start = host_->Now();
  opened.status = device_->OpenEpoch(spec);
  const absl::Time have_client = host_->Now();
  opened.client_us =
      static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Microseconds(have_client - start)));
  if (!opened.status.ok()) return opened;
  epoch_ = open.epoch;
  nodes_ = open.nodes.nodes;
  for (auto& [id, binding] : bindings_) binding->loaded = nullptr;
  for (auto& [id, value] : buffers_) {
    if (value->state != Value::State::kReady) continue;
    const auto array = Use(*value);
    if (array.ok()) {
      ++opened.adopted_buffers;
    } else {
      value->state = Value::State::kError;
      value->error = array.status();
      value->array = nullptr;
    }
  }
  for (const std::shared_ptr<LaunchRecord>& record : holding_) {
    for (size_t i = 0; i < record->held.size(); ++i) {
      const ValueRef value = record->outputs[i].lock();
      if (value == nullptr || !value->pending()) continue;
      auto adopted = device_->Adopt(record->held[i]);
      if (adopted.ok()) {
        record->held[i] = *std::move(adopted);
      } else {
        Resolve(value, adopted.status());
      }
    }
  }
  opened.adopt_us = static_cast<uint64_t>(
      std::max<int64_t>(0, absl::ToInt64Microseconds(host_->Now() - have_client)));
  ledger_->OpenEpoch(open.epoch);
  Pump();
  return opened;
}

absl::StatusOr<device::ArrayRef> OpGraph::Use(Value& value) {
  CHECK(value.state == Value::State::kReady);
  if (value.epoch != epoch_) {
    ASSIGN_OR_RETURN(device::ArrayRef adopted, device_->Adopt(value.array));
    value.array = std::move(adopted);
    value.epoch = epoch_;
    value.producer = nullptr;  // Adopt has waited for it
  }
  return value.array;
}

}  // namespace causeway::worker
