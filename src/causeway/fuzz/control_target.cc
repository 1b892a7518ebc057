// Fuzz target: a worker's end of the control stream, from the bytes to the op graph over a fake
// device.
//
// Frames: 0 a command of the head; 1 a chunk that another worker pushes; 2 time passes or work
// settles. Programs are replaced by small fake ones, picked by the bytes of the real one.
// Checked besides crashes: nothing stays in flight once the epoch is aborted.
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/hash/hash.h"
#include "causeway/base/check.h"
#include "causeway/device/fake_device.h"
#include "causeway/fuzz/target.h"
#include "causeway/worker/command_codec.h"
#include "causeway/worker/launch_ledger.h"
#include "causeway/worker/op_graph.h"
#include "causeway/worker/transfer_assembler.h"
#include "control.pb.h"

namespace causeway::fuzz {
namespace {

using worker::OpGraph;

constexpr int kDevices = 4;
constexpr absl::Duration kTransferTimeout = absl::Minutes(1);

enum Kind : uint8_t { kCommand, kPush, kAround, kKinds };

constexpr const char* kPrograms[] = {
    "fake add_one; inputs 1; addc 0 1; out f32[2] 1",
    "fake add_one; inputs 1; addc 0 1; out f32[2] 1; donate 0",
    "fake add; inputs 2; add 0 1; out f32[2] 2",
    "fake two; inputs 1; addc 0 1; mulc 0 2; out f32[2] 1; out f32[2] 2; donate 0",
    "fake make; inputs 0; const 1 2; out f32[2] 0",
    "fake sum; inputs 1; psum 0; mulc 1 10; out f32[2] 2",
    "fake bad; inputs 1; fail RESOURCE_EXHAUSTED no room; out f32[2] 0",
};

class Worker final : public worker::GraphHost {
 public:
  Worker()
      : device_(kDevices, &fabric_),
        ledger_([this](worker::Event event) { Emit(std::move(event)); }),
        assembler_([this](TransferId id, absl::StatusOr<device::HostBytes> bytes,
                          std::vector<int64_t> strides) {
          graph_->TransferArrived(id, std::move(bytes), std::move(strides));
        }),
        graph_(std::make_unique<OpGraph>(
            &device_, this, &ledger_,
            worker::GraphOptions{.worker = 0,
                                 .devices_per_host = kDevices,
                                 .max_unclaimed_bytes = 1 << 16,
                                 .transfer_timeout = kTransferTimeout})) {
    worker::OpenEpoch open;
    open.epoch = EpochId(1);
    open.nodes.nodes = {1, 2};
    On(open);
  }

  void Feed(const Frame& frame) {
    if (frame.kind == kCommand) {
      absl::StatusOr<worker::Command> command = worker::DecodeCommand(frame.bytes);
      if (!command.ok()) return;
      std::visit([this](auto&& c) { On(std::move(c)); }, *std::move(command));
    } else if (frame.kind == kPush) {
      control::Data data;
      if (data.ParseFromString(frame.bytes)) {
        (void)assembler_.AddFromPeer(worker::DecodeChunk(&data));
      }
    } else if (frame.kind == kAround && !frame.bytes.empty()) {
      switch (static_cast<uint8_t>(frame.bytes[0]) % 4) {
        case 0:
          slow_ = !slow_;
          break;
        case 1:
          now_ += absl::Seconds(static_cast<uint8_t>(frame.bytes.back()));
          graph_->Tick();
          break;
        case 2:
          device_.AbortCollectives();
          break;
        case 3:
          break;
      }
    }
    if (!slow_) Settle();
  }

  void End() {
    now_ += 2 * kTransferTimeout;
    // Twice: what was given up may have held back what waits for another transfer.
    for (int i = 0; i < 2; ++i) {
      graph_->Tick();
      now_ += 2 * kTransferTimeout;
      ledger_.Abort(EpochId(~uint64_t{0}), absl::CancelledError("the input ends"));
      graph_->DropParkedLaunches(EpochId(~uint64_t{0}), absl::CancelledError("the input ends"));
      device_.AbortCollectives();
      Settle();
    }
    CHECK_EQ(ledger_.inflight(), 0);
    graph_->Reset(0);
  }

  // GraphHost.
  void Watch(std::shared_ptr<worker::LaunchRecord> record) override { watched_.push_back(record); }
  void AwaitBytes(std::unique_ptr<device::HostCopy> copy,
                  absl::AnyInvocable<void(absl::StatusOr<device::HostShard>)> done) override {
    waits_.push_back([copy = std::move(copy), done = std::move(done)]() mutable {
      done(copy->Await());
    });
  }
  void AwaitArrays(std::vector<device::ArrayRef> arrays,
                   absl::AnyInvocable<void(absl::Status)> done) override {
    waits_.push_back([this, arrays = std::move(arrays), done = std::move(done)]() mutable {
      done(device_.AwaitReady(arrays));
    });
  }
  void Post(absl::AnyInvocable<void()> work) override { posted_.push_back(std::move(work)); }
  void Emit(worker::Event event) override {
    control::Event encoded;
    worker::EncodeEvent(event, &encoded);
  }
  void Push(WorkerId, TransferId, absl::StatusOr<device::HostBytes>) override {}
  void RunBlocking(absl::AnyInvocable<void()> work) override { waits_.push_back(std::move(work)); }
  absl::Time Now() override { return now_; }

 private:
  void On(const worker::Welcome&) {
    // Another life begins: what is in flight has to end first.
    ledger_.Abort(EpochId(~uint64_t{0}), absl::DataLossError("the head forgot this worker"));
    device_.AbortCollectives();
    Settle();
    graph_->Reset(0);
    ledger_.Reset();
  }
  void On(const worker::OpenEpoch& open) {
    graph_->CloseEpochs(open.epoch);
    Settle();
    // As the machine does: collectives are broken off again and again, since what one held back may
    // begin another, and while a launch runs no epoch opens. Adopting its value would never end.
    for (size_t cuts = watched_.size(); !watched_.empty() && cuts > 0; --cuts) {
      device_.AbortCollectives();
      Settle();
    }
    if (!watched_.empty()) return;
    Emit(graph_->OpenEpoch(open, {.epoch = open.epoch.value(),
                                  .node = open.nodes.nodes.empty() ? 0 : open.nodes.nodes[0],
                                  .worker = 0,
                                  .devices_per_host = kDevices}));
  }
  void On(const worker::AbortEpoch& abort) {
    ledger_.Abort(abort.epoch, abort.cause);
    device_.AbortCollectives();
    graph_->DropParkedLaunches(abort.epoch, abort.cause);
  }
  void On(worker::Chunk chunk) { assembler_.AddFromHead(std::move(chunk)); }
  void On(worker::Compile compile) {
    auto compiled = device_.Compile({Program(compile.what.code), "", 1, 0});
    worker::Reply reply{.request = compile.request, .status = compiled.status()};
    if (compiled.ok()) reply.compiled = *std::move(compiled);
    Emit(std::move(reply));
  }
  void On(const worker::Introspect& introspect) {
    auto source = graph_->FindProgram(introspect.program);
    worker::Reply reply{.request = introspect.request};
    if (source != nullptr) reply.status = device_.Introspect(*source, introspect.what).status();
    Emit(std::move(reply));
  }
  void On(worker::LoadProgram load) {
    load.source.serialized = Program(load.source.serialized + load.source.code);
    graph_->Run(std::move(load));
  }
  void On(const worker::Ping&) {}
  void On(const worker::Shutdown&) {}
  template <class T>
  void On(T command) {
    graph_->Run(std::move(command));
  }

  static std::string Program(const std::string& real) {
    for (const char* program : kPrograms) {
      if (real == program) return real;
    }
    size_t sum = 0;
    for (unsigned char c : real) sum += c;
    return kPrograms[sum % std::size(kPrograms)];
  }

  // Everything that can end does so.
  void Settle() {
    bool progress = true;
    while (progress) {
      progress = false;
      while (!watched_.empty() && device::FakeCompletionIsReady(*watched_.front()->completion)) {
        auto record = std::move(watched_.front());
        watched_.pop_front();
        const absl::Status status = record->completion->Await();
        record->completion = nullptr;
        if (record->seq != LaunchSeq(0)) ledger_.Complete(record->epoch, record->seq, status);
        graph_->LaunchFinished(record, status);
        progress = true;
      }
      // Waiting here is safe only when nothing is left to wait for.
      std::deque<absl::AnyInvocable<void()>> due = std::move(posted_);
      posted_.clear();
      while (watched_.empty() && !waits_.empty()) {
        due.push_back(std::move(waits_.front()));
        waits_.pop_front();
      }
      for (auto& work : due) {
        work();
        progress = true;
      }
    }
  }

  device::FakeFabric fabric_;
  device::FakeDevice device_;
  worker::LaunchLedger ledger_;
  worker::TransferAssembler assembler_;
  std::unique_ptr<OpGraph> graph_;
  std::deque<std::shared_ptr<worker::LaunchRecord>> watched_;
  std::deque<absl::AnyInvocable<void()>> waits_;
  std::deque<absl::AnyInvocable<void()>> posted_;
  absl::Time now_ = absl::UnixEpoch();
  bool slow_ = false;
};

class ControlTarget : public Target {
 public:
  int num_kinds() const override { return kKinds; }
  const google::protobuf::Message* Prototype(uint8_t kind) const override {
    if (kind == kCommand) return &control::Command::default_instance();
    return kind == kPush ? &control::Data::default_instance() : nullptr;
  }
  void Run(const std::vector<Frame>& frames) override {
    Worker worker;
    for (const Frame& frame : frames) worker.Feed(frame);
    worker.End();
  }
};

}  // namespace

Target& TheTarget() {
  static ControlTarget target;
  return target;
}

}  // namespace causeway::fuzz
