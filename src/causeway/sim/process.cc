// The lanes of a simulated worker process.
#include "causeway/sim/process.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "causeway/sim/link.h"
#include "causeway/worker/command_codec.h"

namespace causeway::sim {
namespace {

constexpr absl::Duration kFarewellMax = absl::Seconds(1);
constexpr absl::Duration kReattachPause = absl::Milliseconds(200);
constexpr absl::Duration kReattachPatience = absl::Seconds(60);
constexpr absl::Duration kCutInterval = absl::Milliseconds(5);

struct CommandText {
  std::string operator()(const worker::Welcome& c) const {
    return absl::StrCat("Welcome life ", c.incarnation.value());
  }
  std::string operator()(const worker::OpenEpoch& c) const {
    return absl::StrCat("OpenEpoch ", c.epoch.value());
  }
  std::string operator()(const worker::SetNodes& c) const {
    return absl::StrCat("SetNodes in ", c.epoch.value());
  }
  std::string operator()(const worker::AbortEpoch& c) const {
    return absl::StrCat("AbortEpoch ", c.epoch.value());
  }
  std::string operator()(const worker::Build& c) const {
    return absl::StrCat("Build ", c.buffer.value());
  }
  std::string operator()(const worker::Send& c) const {
    return absl::StrCat("Send ", c.buffer.value(), " as ", c.transfer.value(), " to worker ",
                        c.to.value());
  }
  std::string operator()(const worker::Chunk& c) const {
    return absl::StrCat("Data of ", c.transfer.value());
  }
  std::string operator()(const worker::Fetch& c) const {
    return absl::StrCat("Fetch ", c.buffer.value(), " request ", c.request.value());
  }
  std::string operator()(const worker::AwaitReady& c) const {
    return absl::StrCat("AwaitReady request ", c.request.value());
  }
  std::string operator()(const worker::Compile& c) const {
    return absl::StrCat("Compile request ", c.request.value());
  }
  std::string operator()(const worker::LoadProgram& c) const {
    return absl::StrCat("LoadProgram ", c.program.value());
  }
  std::string operator()(const worker::Bind& c) const {
    return absl::StrCat("Bind ", c.binding.value());
  }
  std::string operator()(const worker::Unbind& c) const {
    return absl::StrCat("Unbind ", c.binding.value());
  }
  std::string operator()(const worker::DropProgram& c) const {
    return absl::StrCat("DropProgram ", c.program.value());
  }
  std::string operator()(const worker::Launch& c) const {
    std::string text = absl::StrCat("Launch ", c.binding.value(), " epoch ", c.epoch.value(),
                                    " seq ", c.seq.value(), " args");
    for (const BufferId id : c.args) absl::StrAppend(&text, " ", id.value());
    absl::StrAppend(&text, " outputs");
    for (const BufferId id : c.outputs) absl::StrAppend(&text, " ", id.value());
    return text;
  }
  std::string operator()(const worker::Free& c) const {
    std::string text = "Free";
    for (const BufferId id : c.buffers) absl::StrAppend(&text, " ", id.value());
    return text;
  }
  std::string operator()(const worker::Introspect&) const { return "Introspect"; }
  std::string operator()(const worker::Ping& c) const { return absl::StrCat("Ping ", c.number); }
  std::string operator()(const worker::FailTransfers& c) const {
    return absl::StrCat("FailTransfers from worker ", c.from.value());
  }
  std::string operator()(const worker::FailTransfer& c) const {
    return absl::StrCat("FailTransfer ", c.transfer.value());
  }
  std::string operator()(const worker::FetchFile& c) const {
    return absl::StrCat("FetchFile request ", c.request.value());
  }
  std::string operator()(const worker::Proceed& c) const {
    return absl::StrCat("Proceed epoch ", c.epoch.value(), " seq ", c.seq.value());
  }
  std::string operator()(const worker::Shutdown&) const { return "Shutdown"; }
};

struct EventText {
  std::string operator()(const worker::Hello&) const { return "Hello"; }
  std::string operator()(const worker::Reply& e) const {
    return absl::StrCat("Reply ", e.request.value(), " ", e.status.ToString());
  }
  std::string operator()(const worker::FetchData& e) const {
    return absl::StrCat("FetchData ", e.request.value(), " device ", e.device);
  }
  std::string operator()(const worker::LaunchDone& e) const {
    return absl::StrCat("LaunchDone epoch ", e.epoch.value(), " seq ", e.seq.value());
  }
  std::string operator()(const worker::LaunchFailed& e) const {
    return absl::StrCat("LaunchFailed epoch ", e.epoch.value(), " seq ", e.seq.value(), " ",
                        e.status.ToString());
  }
  std::string operator()(const worker::AtRendezvous& e) const {
    return absl::StrCat("AtRendezvous epoch ", e.epoch.value(), " seq ", e.seq.value());
  }
  std::string operator()(const worker::EpochOpened& e) const {
    return absl::StrCat("EpochOpened ", e.epoch.value(), " ", e.status.ToString());
  }
  std::string operator()(const worker::TransferFailed& e) const {
    return absl::StrCat("TransferFailed ", e.transfer.value(), " to worker ", e.to.value());
  }
  std::string operator()(const worker::Pong& e) const { return absl::StrCat("Pong ", e.number); }
};

}  // namespace

std::string Describe(const std::string& command) {
  const auto decoded = worker::DecodeCommand(command);
  return decoded.ok() ? std::visit(CommandText(), *decoded) : decoded.status().ToString();
}

Process::Process(World& world, int home, int pid, worker::FaultPlan faults)
    : world_(world),
      home_(home),
      pid_(pid),
      address_(absl::StrCat("sim:", pid)),
      place_(home < world.plan.shape.num_workers() ? home : -1),
      lost_at_(world.scheduler.Now()) {
  device::FakeDeviceHooks hooks;
  hooks.pace = [this](std::function<void()> go) {
    Later(world_.plan.compute_max * world_.random.Unit(), [go = std::move(go)] { go(); });
  };
  hooks.progressed = [this] { Progressed(); };
  hooks.trouble = [this]() -> absl::Status {
    if (place_ < 0 || world_.trouble_due[place_] == 0) return absl::OkStatus();
    --world_.trouble_due[place_];
    ++world_.troubles[place_];
    world_.Note("worker ", place_, ": a computation fails");
    return world_.plan.seed % 2 == 0
               ? absl::ResourceExhaustedError(absl::StrCat("sim: no memory on worker ", place_))
               : absl::InternalError(absl::StrCat("sim: the device of worker ", place_, " failed"));
  };
  device_ = std::make_unique<device::FakeDevice>(world.plan.shape.devices_per_host, &world.fabric,
                                                 std::move(hooks));
  machine_ = std::make_unique<worker::Machine>(
      worker::MachineOptions{
          .worker = place_, .faults = faults, .transfer_timeout = absl::Seconds(90)},
      device_.get(), this);
}

Process::~Process() = default;

void Process::Start(absl::Duration after) {
  Later(after, [this] { TryAttach(); });
  Later(absl::Seconds(1), [this] { TickTurn(); });
}

void Process::Later(absl::Duration delay, Work work) {
  if (!alive_) return;
  world_.scheduler.Schedule(
      delay * slowness_, [weak = weak_from_this(), work = std::move(work)]() mutable {
        const std::shared_ptr<Process> self = weak.lock();
        if (self == nullptr || !self->alive_) return;
        if (self->paused_) {
          self->frozen_.push_back(std::move(work));
        } else {
          work();
        }
      });
}

absl::Duration Process::Step() {
  const double unit = world_.random.Unit();
  return absl::Nanoseconds(500) + absl::Microseconds(400) * unit * unit * unit * unit;
}

void Process::Die(bool peers_notice) {
  if (!alive_) return;
  alive_ = false;
  if (peers_notice) device_->AbortCollectives();
  device_->Vanish();
  if (link_ != nullptr && peers_notice) link_->Broken();
  link_ = nullptr;
}

void Process::Pause() { paused_ = true; }

void Process::Resume() {
  if (!paused_) return;
  paused_ = false;
  world_.Note("worker ", place_, " pid ", pid_, " goes on");
  std::vector<Work> frozen = std::move(frozen_);
  frozen_.clear();
  // At once and in order: what comes from now on must not overtake it.
  const auto self = shared_from_this();
  for (Work& work : frozen) {
    if (alive_) work();
  }
}

void Process::Exit(const std::string& why) {
  world_.Note("worker ", place_, " pid ", pid_, " ends: ", why);
  Die(/*peers_notice=*/true);
  world_.Ended(this, absl::Milliseconds(200) + absl::Seconds(1) * world_.random.Unit());
}

void Process::GiveUp(const std::string& why) { Exit(why); }

void Process::Leave(const std::string& why) {
  leaving_ = why;
  Later(kFarewellMax, [this] { Exit(leaving_); });
}

// ---------------------------------------------------------------- the control stream

void Process::TryAttach() {
  if (link_ != nullptr) return;
  if (was_attached_ && Now() - lost_at_ > kReattachPatience) {
    Exit("the head cannot be reached");
    return;
  }
  // A connection cannot even be made while nothing passes.
  if (world_.HeadOpenAt(home_) > Now()) {
    Later(kReattachPause * 6, [this] { TryAttach(); });
    return;
  }
  link_ = std::make_shared<Link>(world_, shared_from_this());
  inbox_.clear();
  reader_held_ = false;
  events_.Open();
  core::WorkerHello hello;
  hello.worker = WorkerId(place_);
  hello.spare = world_.plan.spares > 0;
  hello.pid = pid_;
  hello.host = absl::StrCat("host-", home_);
  hello.data_address = address_;
  hello.platform = "cpu";
  hello.memory_kinds = {"device"};
  hello.num_devices = world_.plan.shape.devices_per_host;
  link_->Hello(std::move(hello));
}

void Process::OnStreamEnd(Link* link, const absl::Status& why) {
  Later(absl::ZeroDuration(), [this, link, why] {
    if (link_.get() != link) return;
    world_.Note("worker ", place_, " pid ", pid_, ": the stream ends: ", why.ToString());
    link_ = nullptr;
    events_.Close();
    if (!leaving_.empty()) {
      Exit(leaving_);
      return;
    }
    if (why.code() != absl::StatusCode::kUnavailable) {
      Exit(std::string(why.message()));
      return;
    }
    lost_at_ = Now();
    Later(kReattachPause, [this] { TryAttach(); });
  });
}

void Process::OnCommands(Link* link, const Batch& batch) {
  Later(absl::ZeroDuration(), [this, link, batch] {
    if (link_.get() != link) return;
    inbox_.insert(inbox_.end(), batch.begin(), batch.end());
    ReaderTurn();
  });
}

void Process::ReaderTurn() {
  if (reader_busy_ || reader_held_ || inbox_.empty()) return;
  reader_busy_ = true;
  Later(Step(), [this] {
    reader_busy_ = false;
    if (inbox_.empty()) return;  // another stream has begun
    const std::shared_ptr<const std::string> bytes = std::move(inbox_.front());
    inbox_.pop_front();
    auto command = worker::DecodeCommand(*bytes);
    if (!command.ok()) {
      world_.Violation("worker ", place_, " cannot read a command: ", command.status().ToString());
      return;
    }
    if (std::holds_alternative<worker::Welcome>(*command)) {
      reader_held_ = true;
      Later(world_.plan.network_max * world_.random.Unit(), [this, weak = std::weak_ptr(link_)] {
        if (auto link = weak.lock()) link->BulkOpened();
      });
    }
    if (const auto* compile = std::get_if<worker::Compile>(&*command)) {
      world_.Compiled(absl::StrCat(compile->what.num_devices, " ", compile->what.code));
    }
    machine_->OnCommand(*std::move(command));
    ReaderTurn();
  });
}

void Process::OnWelcome(const worker::Welcome& welcome) {
  was_attached_ = true;
  place_ = welcome.worker.value();
}

void Process::OnLifeStarted() {
  reader_held_ = false;
  ReaderTurn();
}

void Process::OnBulk(const Batch& batch) {
  Later(absl::ZeroDuration(), [this, batch] {
    for (const auto& bytes : batch) {
      auto command = worker::DecodeCommand(*bytes);
      if (command.ok() && std::holds_alternative<worker::Chunk>(*command)) {
        machine_->OnChunk(std::get<worker::Chunk>(*std::move(command)));
      } else {
        world_.Violation("the bulk stream carried something else than data");
      }
    }
  });
}

void Process::Emit(worker::Event event) {
  events_.Put(std::move(event));
  EmitTurn();
}

void Process::EmitTurn() {
  if (emit_busy_ || link_ == nullptr) return;
  emit_busy_ = true;
  Later(Step(), [this] {
    emit_busy_ = false;
    if (link_ == nullptr) return;
    for (const worker::Event& event : events_.TakeNow()) {
      if (world_.trace.on()) {
        world_.Note("worker ", place_, " pid ", pid_, " -> head: ", std::visit(EventText(), event));
      }
      link_->Event(worker::EncodeEvent(event));
    }
  });
}

// ---------------------------------------------------------------- the operation lane

void Process::Post(absl::AnyInvocable<void()> work) {
  operations_.push_back(std::move(work));
  OperationTurn();
}

void Process::OperationTurn() {
  if (operation_busy_) return;
  if (machine_->waiting_until().has_value()) {
    if (!machine_->Quiet() && Now() < *machine_->waiting_until()) return;  // looked at again
  } else if (operations_.empty()) {
    return;
  }
  operation_busy_ = true;
  Later(Step(), [this] {
    operation_busy_ = false;
    RunOperation();
    OperationTurn();
  });
}

void Process::RunOperation() {
  if (machine_->waiting_until().has_value()) {
    if (machine_->Quiet() || Now() >= *machine_->waiting_until()) machine_->EndWait();
  } else if (!operations_.empty()) {
    Work work = std::move(operations_.front());
    operations_.pop_front();
    work();
  }
  if (alive_ && machine_->waiting_until().has_value()) {
    world_.scheduler.Schedule(*machine_->waiting_until() - Now(), [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->Later(absl::ZeroDuration(), [p = self.get()] {
        p->OperationTurn();
      });
    });
  }
}

void Process::TickTurn() {
  // Once a second, on the operation lane, unless that waits.
  if (!operation_busy_ && !machine_->waiting_until().has_value()) machine_->Tick();
  Later(absl::Seconds(1), [this] { TickTurn(); });
}

// ---------------------------------------------------------------- what the device does

void Process::Watch(std::shared_ptr<worker::LaunchRecord> record) {
  if (record->seq != LaunchSeq(0)) {
    // The one thing that the fence is for.
    if (machine_->ledger().aborted(record->epoch)) {
      world_.Violation("worker ", place_, " runs launch ", record->seq.value(), " of epoch ",
                       record->epoch.value(), ", which was given up");
    }
    multi_.push_back(std::move(record));
  } else {
    local_.push_back(std::move(record));
  }
  Progressed();
}

void Process::Progressed() {
  if (look_due_ || !alive_) return;
  look_due_ = true;
  Later(absl::ZeroDuration(), [this] {
    look_due_ = false;
    LookAround();
  });
}

void Process::LookAround() {
  WatchTurn(&multi_, &multi_busy_);
  WatchTurn(&local_, &local_busy_);
  for (auto it = copies_.begin(); it != copies_.end();) {
    if (!device::FakeCopyIsReady(*(*it)->copy)) {
      ++it;
      continue;
    }
    Later(Step(), [this, c = std::shared_ptr<Copy>(std::move(*it))] {
      c->done(c->copy->Await());
      --aside_;
      OperationTurn();
    });
    it = copies_.erase(it);
  }
  for (auto it = arrays_.begin(); it != arrays_.end();) {
    const bool ready =
        std::all_of((*it)->arrays.begin(), (*it)->arrays.end(),
                    [](const device::ArrayRef& a) { return device::FakeArrayIsReady(*a); });
    if (!ready) {
      ++it;
      continue;
    }
    Later(Step(), [this, a = std::shared_ptr<Arrays>(std::move(*it))] {
      a->done(device_->AwaitReady(a->arrays));
      --aside_;
      OperationTurn();
    });
    it = arrays_.erase(it);
  }
}

void Process::WatchTurn(std::deque<std::shared_ptr<worker::LaunchRecord>>* records, bool* busy) {
  if (*busy || records->empty()) return;
  if (!device::FakeCompletionIsReady(*records->front()->completion)) return;
  *busy = true;
  Later(Step(), [this, records, busy] {
    *busy = false;
    const std::shared_ptr<worker::LaunchRecord> record = std::move(records->front());
    records->pop_front();
    const absl::Status status = record->completion->Await();
    record->completion = nullptr;
    machine_->Completed(record, status);
    OperationTurn();
    WatchTurn(records, busy);
  });
}

void Process::AwaitBytes(std::unique_ptr<device::HostCopy> copy,
                         absl::AnyInvocable<void(absl::StatusOr<device::HostShard>)> done) {
  ++aside_;
  copies_.push_back(std::make_unique<Copy>(Copy{std::move(copy), std::move(done)}));
  Progressed();
}

void Process::AwaitArrays(std::vector<device::ArrayRef> arrays,
                          absl::AnyInvocable<void(absl::Status)> done) {
  ++aside_;
  arrays_.push_back(std::make_unique<Arrays>(Arrays{std::move(arrays), std::move(done)}));
  Progressed();
}

void Process::RunAside(absl::AnyInvocable<void()> work) {
  ++aside_;
  Later(absl::Milliseconds(30) * world_.random.Unit(),
        [this, work = std::make_shared<Work>(std::move(work))] {
          (*work)();
          --aside_;
          OperationTurn();
        });
}

void Process::CutCollectives() {
  if (std::exchange(cutting_, true)) return;
  // Programs on this host's own devices are given a chance to end first.
  Later(Step() + kCutInterval * (world_.random.Below(2) == 0 ? 0 : world_.random.Unit()), [this] {
    cutting_ = false;
    CutTurn();
  });
}

void Process::CutTurn() {
  if (machine_->ledger().broken_inflight() == 0) return;
  device_->AbortCollectives();
  Later(kCutInterval, [this] { CutTurn(); });
}

// ---------------------------------------------------------------- worker to worker

void Process::Push(WorkerId to, TransferId transfer, absl::StatusOr<device::HostBytes> bytes) {
  const auto index = static_cast<size_t>(to.value());
  if (index >= peers_.size() || peers_[index].empty()) return;  // the head tells who waits
  if (world_.transfers_to_lose[place_] > 0) {
    --world_.transfers_to_lose[place_];
    ++world_.lost_transfers;
    world_.Note("worker ", place_, ": transfer ", transfer.value(), " is lost");
    return;
  }
  const std::string& address = peers_[index];
  std::unique_ptr<Channel>& channel = pushes_[address];
  if (channel == nullptr) {
    channel = std::make_unique<Channel>(
        world_.scheduler, world_.random, world_.plan.network_max,
        [this, to] { return world_.PeersOpenAt(place_, to.value()); });
  }
  channel->Send([this, address, transfer, bytes = std::move(bytes)]() mutable {
    const auto peer = world_.ByAddress(address);
    world_.Note("worker ", place_, " -> ", address, ": transfer ", transfer.value(),
                peer == nullptr ? " finds nobody" : "");
    if (peer != nullptr) peer->OnPush(transfer, std::move(bytes));
  });
}

void Process::OnPush(TransferId transfer, absl::StatusOr<device::HostBytes> bytes) {
  Later(Step(), [this, transfer, bytes = std::move(bytes)] {
    if (!bytes.ok()) {
      (void)machine_->assembler().AddFromPeer({.transfer = transfer, .error = bytes.status()});
      return;
    }
    const auto total = static_cast<int64_t>((*bytes)->size());
    int64_t offset = 0;
    do {
      const int64_t size = std::min(world_.plan.chunk_bytes, total - offset);
      (void)machine_->assembler().AddFromPeer(
          {.transfer = transfer,
           .offset = offset,
           .total = total,
           .bytes = std::string((*bytes)->data() + offset, static_cast<size_t>(size))});
      offset += size;
    } while (offset < total);
  });
}

}  // namespace causeway::sim
