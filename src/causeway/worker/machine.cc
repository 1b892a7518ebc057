// Lives, epochs and questions of a worker; the graph does the rest.
#include "causeway/worker/machine.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "causeway/base/check.h"
#include "causeway/base/log.h"
#include "causeway/base/probes.h"

namespace causeway::worker {
namespace {

// What a command is called in the log.
template <class T>
constexpr const char* kNameOf = "a command";
template <>
constexpr const char* kNameOf<Build> = "Build";
template <>
constexpr const char* kNameOf<Send> = "Send";
template <>
constexpr const char* kNameOf<Fetch> = "Fetch";
template <>
constexpr const char* kNameOf<Bind> = "Bind";
template <>
constexpr const char* kNameOf<Launch> = "Launch";
template <>
constexpr const char* kNameOf<Proceed> = "Proceed";

int NodeOf(const NodeMap& map, int worker) {
  const bool known = worker >= 0 && static_cast<size_t>(worker) < map.nodes.size();
  return known ? map.nodes[static_cast<size_t>(worker)] : 0;
}

}  // namespace

Machine::Machine(MachineOptions options, device::Device* device, MachineHost* host)
    : options_(std::move(options)),
      device_(device),
      host_(host),
      ledger_([this](Event event) { Emit(std::move(event)); }),
      assembler_([this](TransferId id, absl::StatusOr<device::HostBytes> bytes,
                        std::vector<int64_t> strides) {
        Post([this, id, bytes = std::move(bytes), strides = std::move(strides)]() mutable {
          if (graph_ == nullptr) {
            REACHED("machine.transfer_before_the_welcome");
            early_transfers_.push_back({id, std::move(bytes), std::move(strides)});
            return;
          }
          graph_->TransferArrived(id, std::move(bytes), std::move(strides));
        });
      }),
      place_(options_.worker) {}

void Machine::Emit(Event event) {
  if (!muted_) host_->Emit(std::move(event));
}

void Machine::Push(WorkerId to, TransferId transfer, absl::StatusOr<device::HostBytes> bytes) {
  if (to != WorkerId(place_)) {
    host_->Push(to, transfer, std::move(bytes));
    return;
  }
  if (bytes.ok()) {
    host_->Moved("push", "local", static_cast<int64_t>((*bytes)->size()), absl::ZeroDuration());
  }
  Post([this, transfer, bytes = std::move(bytes)]() mutable {
    graph_->TransferArrived(transfer, std::move(bytes), {});
  });
}

// ---------------------------------------------------------------- reader lane

void Machine::OnCommand(Command command) {
  std::visit([this](auto&& c) { On(std::move(c)); }, std::move(command));
}

void Machine::On(Welcome welcome) {
  place_ = welcome.worker.value();
  host_->OnWelcome(welcome);
  // A collective of the old life may hold the operation lane.
  if (life_.exchange(welcome.incarnation.value()) != welcome.incarnation.value()) {
    ledger_.Abort(EpochId(~uint64_t{0}), absl::DataLossError("the head forgot this worker"));
    host_->CutCollectives();
    absl::MutexLock lock(&early_mu_);
    early_.clear();
  }
  Post([this, welcome = std::move(welcome)] { StartLife(welcome); });
}

void Machine::On(OpenEpoch open) {
  // On the reader lane, as SetNodes does: a newcomer's address must not be lost to an older list that
  // the operation lane comes to later.
  host_->SetPeers(open.nodes);
  Post([this, open = std::move(open)]() mutable { StartOpening(std::move(open)); });
}

void Machine::On(SetNodes nodes) {
  host_->SetPeers(nodes.nodes);
  Post([this, nodes = std::move(nodes)] { graph_->Run(nodes); });
}

void Machine::OnChunk(Chunk chunk) {
  if (!chunk.file.empty()) {
    host_->Moved("upload", "shared_memory", chunk.total, absl::ZeroDuration());
  } else if (chunk.error.ok() &&
             chunk.offset + static_cast<int64_t>(chunk.bytes.size()) == chunk.total) {
    host_->Moved("upload", "stream", chunk.total, absl::ZeroDuration());
  }
  assembler_.AddFromHead(std::move(chunk));
}

void Machine::On(AbortEpoch abort) {
  ledger_.Abort(abort.epoch, abort.cause);
  aborted_by_head_ = std::max(aborted_by_head_.load(), abort.epoch.value());
  host_->CutCollectives();
  Post([this, abort = std::move(abort)] {
    if (graph_ != nullptr) graph_->DropParkedLaunches(abort.epoch, abort.cause);
  });
}

void Machine::On(FailTransfer fail) {
  assembler_.Forget(fail.transfer);
  Post([this, fail = std::move(fail)] { graph_->Run(fail); });
}

void Machine::On(Compile compile) {
  {
    // XLA compiles with the client of an epoch. A process that has just taken a place in the cluster
    // is asked as soon as it has attached.
    absl::MutexLock lock(&early_mu_);
    if (!opened_) {
      early_.push_back(std::move(compile));
      return;
    }
  }
  RunCompile(std::move(compile));
}

void Machine::RunCompile(Compile compile) {
  host_->RunAside([this, compile = std::move(compile)] {
    auto compiled = device_->Compile(compile.what);
    ++compiles_;
    Reply reply{.request = compile.request, .status = compiled.status()};
    if (compiled.ok()) reply.compiled = *std::move(compiled);
    Emit(std::move(reply));
  });
}

void Machine::On(Introspect introspect) {
  // The program is looked up in stream order; the work is done beside it.
  Post([this, introspect = std::move(introspect)] {
    auto source = graph_->FindProgram(introspect.program);
    host_->RunAside([this, introspect, source] {
      Reply reply{.request = introspect.request};
      if (source == nullptr) {
        reply.status = absl::FailedPreconditionError(
            absl::StrCat("program ", introspect.program.value(), " is not on this worker"));
      } else {
        auto found = device_->Introspect(*source, introspect.what);
        reply.status = found.status();
        if (found.ok()) {
          reply.text = std::move(found->text);
          reply.numbers = std::move(found->numbers);
        }
      }
      Emit(std::move(reply));
    });
  });
}

// A program that does not come to its end with the zeros that a failed callback gave it.
void Machine::LookForOverdueFailure() {
  const absl::Status failure = device_->OverdueFailure();
  if (failure.ok()) return;
  if (ledger_.inflight() > 0) {
    REACHED("machine.overdue_launch");
    const auto [epoch, seq] = ledger_.admitted();
    ledger_.Refuse(epoch, seq, failure);
    return;
  }
  // Nothing reaches a launch of this host alone, and it holds its devices.
  REACHED("machine.overdue_local_launch");
  host_->Leave(absl::StrCat("a program does not end after a callback of it has failed: ",
                            failure.message()));
}

void Machine::On(Ping ping) {
  LookForOverdueFailure();
  const ProcessStats process = host_->ReadStats();
  const auto [epoch, admitted] = ledger_.admitted();
  OpGraph::Waiting waiting;
  {
    absl::MutexLock lock(&progress_mu_);
    waiting = waiting_;
  }
  Pong pong{.number = ping.number,
            .inflight = ledger_.inflight(),
            .resident_bytes = process.resident_bytes,
            .buffers = buffers_,
            .buffer_bytes = buffer_bytes_,
            .open_files = process.open_files,
            .threads = process.threads,
            .compiles = compiles_,
            .loads = loads_,
            .launches = launches_,
            .epoch = epoch,
            .admitted = waiting.could_start ? std::max(admitted, waiting.seq) : admitted,
            .waiting = waiting.seq,
            .waits_for = waiting.what};
  host_->CountTransfers(&pong);
  Emit(std::move(pong));
  Post([this] {
    if (graph_ == nullptr) return;
    const OpGraph::Stats stats = graph_->stats();
    buffers_ = stats.buffers;
    buffer_bytes_ = stats.buffer_bytes;
    loads_ = stats.loads;
    launches_ = stats.launches;
    absl::MutexLock lock(&progress_mu_);
    waiting_ = graph_->waiting_launch();
  });
}

void Machine::On(const Shutdown& shutdown) { LOG(INFO) << "shutdown: " << shutdown.reason; }

template <class T>
void Machine::On(T command) {
  Post([this, command = std::move(command)]() mutable {
    doing_ = kNameOf<T>;
    if (graph_ != nullptr) graph_->Run(std::move(command));
  });
}

void Machine::Completed(const std::shared_ptr<LaunchRecord>& record, absl::Status status) {
  // Breaking an epoch's collectives off also hits a program on several devices of this host alone:
  // its value's readers are told why, not that some connection was closed.
  if (record->seq == LaunchSeq(0) && device::IsPeerFailure(status)) {
    REACHED("machine.local_program_cut_off");
    if (absl::Status cause = ledger_.Verdict(record->epoch); !cause.ok()) status = cause;
  }
  if (record->seq != LaunchSeq(0)) ledger_.Complete(record->epoch, record->seq, status);
  Post([this, record, status] {
    doing_ = "a result";
    if (graph_ != nullptr) graph_->LaunchFinished(record, status);
  });
}

void Machine::Stop() {
  ledger_.Abort(EpochId(~uint64_t{0}), absl::CancelledError("the worker is shutting down"));
  host_->CutCollectives();
}

// ---------------------------------------------------------------- operation lane

std::optional<absl::Time> Machine::waiting_until() const { return until_; }

bool Machine::Quiet() {
  return ledger_.inflight() == 0 && (!next_life_.has_value() || host_->AsideIdle());
}

void Machine::Tick() {
  if (graph_ != nullptr) graph_->Tick();
  if (ticks_until_forgetting_ > 0 && --ticks_until_forgetting_ == 0) device_->ForgetOldEpochs();
}

void Machine::EndWait() {
  CHECK(until_.has_value());
  const bool quiet = Quiet();
  until_.reset();
  if (next_life_.has_value()) {
    if (!quiet) {
      REACHED("machine.old_life_does_not_end");
      host_->GiveUp("what an earlier head left here does not end; start this worker anew");
      return;
    }
    REACHED("machine.another_life");
    graph_->Reset(place_);
    assembler_.ForgetAll();
    aborted_by_head_ = 0;
    muted_ = false;
    welcome_ = *std::exchange(next_life_, std::nullopt);
    BeginLife();
    return;
  }
  CHECK(opening_.has_value());
  if (!quiet && opening_->patient) {
    REACHED("machine.patience_ended");
    opening_->patient = false;
    host_->CutCollectives();
    until_ = opening_->start + opening_->bound;
    return;
  }
  FinishOpening();
}

void Machine::StartLife(const Welcome& welcome) {
  if (graph_ == nullptr) {
    welcome_ = welcome;
    BeginLife();
    return;
  }
  if (welcome.incarnation == welcome_.incarnation) {
    host_->OnLifeStarted();
    return;
  }
  if (welcome.devices_per_host != welcome_.devices_per_host) {
    host_->GiveUp("the cluster has another number of devices a host now; start this worker anew");
    return;
  }
  muted_ = true;
  next_life_ = welcome;
  until_ = Now() + options_.reset_patience;
}

void Machine::BeginLife() {
  ledger_.Reset();
  if (graph_ == nullptr) {
    graph_ = std::make_unique<OpGraph>(
        device_, static_cast<GraphHost*>(this), &ledger_,
        GraphOptions{.worker = place_,
                     .num_workers = std::max(1, welcome_.num_workers),
                     .devices_per_host = std::max(1, welcome_.devices_per_host),
                     .max_inflight_multi =
                         welcome_.max_inflight_launches > 0 ? welcome_.max_inflight_launches : 8,
                     .transfer_timeout = options_.transfer_timeout,
                     .faults = options_.faults});
    for (EarlyTransfer& t : std::exchange(early_transfers_, {})) {
      graph_->TransferArrived(t.transfer, std::move(t.bytes), std::move(t.strides));
    }
  }
  host_->OnLifeStarted();
}

void Machine::StartOpening(OpenEpoch open) {
  doing_ = "OpenEpoch";
  graph_->CloseEpochs(open.epoch);
  const absl::Duration bound = absl::Milliseconds(std::max<uint64_t>(1, open.drain_ms));
  const bool patient = aborted_by_head_ + 1 < open.epoch.value();
  opening_ = Opening{std::move(open), Now(), bound, patient};
  if (Quiet()) {
    FinishOpening();
  } else {
    until_ = opening_->start + (patient ? bound / 2 : bound);
  }
}

void Machine::FinishOpening() {
  const Opening opening = *std::exchange(opening_, std::nullopt);
  const absl::Duration drained = Now() - opening.start;
  EpochOpened opened;
  const bool quiet = Quiet();
  if (quiet) {
    opened = graph_->OpenEpoch(opening.open, {.epoch = opening.open.epoch.value(),
                                              .node = NodeOf(opening.open.nodes, place_),
                                              .coordinator = welcome_.coordinator,
                                              .callbacks = welcome_.callbacks,
                                              .num_nodes = welcome_.num_nodes,
                                              .worker = place_,
                                              .num_workers = welcome_.num_workers,
                                              .devices_per_host = welcome_.devices_per_host});
    // Not now: the client of the user waits for its next step.
    if (ticks_until_forgetting_ == 0) ticks_until_forgetting_ = 2;
  } else {
    REACHED("machine.drain_too_late");
    opened.epoch = opening.open.epoch;
    opened.status = absl::DeadlineExceededError(
        absl::StrCat(ledger_.inflight(), " launches of the older epoch did not end within ",
                     absl::FormatDuration(opening.bound), " (",
                     graph_->DescribeLaunches(ledger_.launches_inflight()),
                     "); restart this worker"));
  }
  opened.drain_us = static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Microseconds(drained)));
  const bool open = opened.status.ok();
  const std::string why(opened.status.message());
  Emit(std::move(opened));
  if (!open) {
    // The head counts this worker as lost. Launches that hang cannot be taken out of an XLA client.
    if (!quiet) host_->Leave(why);
    return;
  }
  std::vector<Compile> early;
  {
    absl::MutexLock lock(&early_mu_);
    opened_ = true;
    early.swap(early_);
  }
  for (Compile& compile : early) RunCompile(std::move(compile));
}

}  // namespace causeway::worker
