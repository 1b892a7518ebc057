// What the controller alone spends on one program, by the number of hosts that run it.
//
//   bench_controller [--quick]
//
// The controller is the real one. Its workers are emulated: links that count commands, and
// confirmations that this program makes up. So there is no network and no computation, and the
// figures say what the controller costs a host, not how fast a cluster is. Every program has its
// results fed to the next one and the old ones dropped, as a training loop does. Prints one JSON
// object a line: hosts, args, confirm_every, and microseconds of processor time.
#include <ctime>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/synchronization/mutex.h"
#include "causeway/base/check.h"
#include "causeway/base/clock.h"
#include "causeway/base/random.h"
#include "causeway/base/timers.h"
#include "causeway/controller/controller.h"
#include "causeway/wire/ifrt_sharding.h"
#include "control.pb.h"

namespace causeway::bench {
namespace {

double ThreadMicroseconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

class CountingLink : public core::WorkerLink {
 public:
  void Send(std::shared_ptr<const std::string> command) override {
    ++commands;
    bytes += static_cast<int64_t>(command->size());
    last = std::move(command);
  }
  void SendData(TransferId transfer, absl::StatusOr<absl::Cord> bytes) override {}
  void Close(absl::string_view reason) override {}
  int64_t queued_bytes() const override { return 0; }

  int64_t commands = 0;
  int64_t bytes = 0;
  std::shared_ptr<const std::string> last;
};

class EmulatedMembership : public controller::Membership {
 public:
  absl::StatusOr<int> NewNode(WorkerId worker) override { return worker.value() + 1; }
  int num_nodes() const override { return 1 << 20; }
  void EpochChanged(EpochId epoch, const absl::Status& cause) override {}
};

class ReadyBytes : public core::HostBytes {
 public:
  explicit ReadyBytes(std::string bytes) : bytes_(std::move(bytes)) {}
  void OnReady(absl::AnyInvocable<void(absl::StatusOr<absl::Cord>) &&> done) override {
    std::move(done)(bytes_);
  }

 private:
  const absl::Cord bytes_;
};

// A cluster of emulated hosts with one device each, and a session that runs one program on all.
class Emulation {
 public:
  Emulation(int hosts, int args)
      : timers_(clock_),
        random_(1),
        controller_(Options(hosts), membership_, clock_, timers_, random_) {
    const double begin = ThreadMicroseconds();
    for (int w = 0; w < hosts; ++w) Attach(w);
    attach_us_ = ThreadMicroseconds() - begin;
    attach_bytes_ = links_[0]->bytes;
    CHECK(controller_.Complete());
    session_ = controller_.OpenSession("benchmark");
    for (int i = 0; i < args; ++i) values_.push_back(MakeArgument(hosts));
    Compile(hosts, args);
  }
  ~Emulation() { controller_.Shutdown("the benchmark is over"); }

  // One program: its arguments are the results of the one before, which are dropped.
  void Step() {
    core::ExecuteRequest request;
    request.executable = executable_;
    request.args = values_;
    for (size_t i = 0; i < values_.size(); ++i) request.results.push_back(NewHandle());
    std::vector<ArrayHandle> results = request.results;
    const double begin = ThreadMicroseconds();
    CHECK(controller_.Execute(session_, request).ok());
    execute_us_ += ThreadMicroseconds() - begin;
    ++launched_;
    const double drop = ThreadMicroseconds();
    CHECK(controller_.Destruct(session_, values_).ok());
    destruct_us_ += ThreadMicroseconds() - drop;
    values_ = std::move(results);
  }

  // Every host says that it has finished all programs so far.
  void Confirm() {
    control::Event event;
    event.mutable_launch_done()->set_epoch(epoch_);
    event.mutable_launch_done()->set_seq(first_seq_ + launched_ - 1);
    const std::string bytes = event.SerializeAsString();
    const double begin = ThreadMicroseconds();
    for (size_t w = 0; w < links_.size(); ++w) {
      controller_.OnEvent(WorkerId(static_cast<int32_t>(w)), incarnations_[w], bytes);
    }
    confirm_us_ += ThreadMicroseconds() - begin;
  }

  // Whether the last results may be read, which takes every host's confirmation.
  bool Ready() {
    bool ready = false;
    controller_.AwaitReady(session_, values_,
                           [&ready](absl::Status status) { ready = status.ok(); });
    return ready;
  }

  // One host goes away while all run: its programs fail, the others are moved to a new epoch.
  double LoseOneHost() {
    const double begin = ThreadMicroseconds();
    controller_.OnDetached(WorkerId(0), incarnations_[0], "it was taken away");
    const double spent = ThreadMicroseconds() - begin;
    absl::Status lost;
    controller_.AwaitReady(session_, values_, [&lost](absl::Status status) { lost = status; });
    CHECK(lost.code() == absl::StatusCode::kDataLoss) << lost;
    return spent;
  }

  void ResetCounts() {
    execute_us_ = destruct_us_ = confirm_us_ = 0;
    bytes_before_ = links_[0]->bytes;
    launches_before_ = launched_;
  }
  void Print(int args, int confirm_every, double lose_us) const {
    const double n = static_cast<double>(launched_ - launches_before_);
    const double hosts = static_cast<double>(links_.size());
    const double total = execute_us_ + destruct_us_ + confirm_us_;
    std::printf(
        "{\"hosts\": %zu, \"args\": %d, \"confirm_every\": %d, \"execute_us\": %.3f, "
        "\"destruct_us\": %.3f, \"confirm_us\": %.3f, \"us_per_host\": %.4f, "
        "\"bytes_per_host\": %.1f, \"programs\": %.0f, \"attach_us\": %.0f, "
        "\"attach_bytes\": %.0f, \"lose_us\": %.0f}\n",
        links_.size(), args, confirm_every, execute_us_ / n, destruct_us_ / n, confirm_us_ / n,
        total / n / hosts, static_cast<double>(links_[0]->bytes - bytes_before_) / n, n, attach_us_,
        static_cast<double>(attach_bytes_), lose_us);
    std::fflush(stdout);
  }

 private:
  static controller::ControllerOptions Options(int hosts) {
    controller::ControllerOptions options;
    options.shape.hosts_per_slice = hosts;
    return options;
  }

  void Attach(int worker) {
    core::WorkerHello hello;
    hello.worker = WorkerId(worker);
    hello.host = "emulated";
    hello.data_address = "emulated:1";
    hello.platform = "cpu";
    hello.device_kind = "cpu";
    hello.memory_kinds = {"device"};
    hello.num_devices = 1;
    auto link = std::make_shared<CountingLink>();
    links_.push_back(link);
    absl::StatusOr<core::WorkerAdmission> admission = controller_.OnAttached(hello, link);
    CHECK(admission.ok()) << admission.status();
    incarnations_.push_back(admission->incarnation);
    control::Event opened;
    opened.mutable_epoch_opened()->set_epoch(epoch_);
    controller_.OnEvent(hello.worker, admission->incarnation, opened.SerializeAsString());
  }

  static std::vector<DeviceId> Devices(int hosts) {
    std::vector<DeviceId> devices;
    for (int d = 0; d < hosts; ++d) devices.push_back(DeviceId(d));
    return devices;
  }

  ArrayHandle MakeArgument(int hosts) {
    core::ArraySpec spec;
    spec.dtype = model::DType::kF32;
    spec.sharding = *model::Sharding::Hlo(Devices(hosts), "device", model::OpSharding());
    core::HostShards source;
    for (int i = 0; i < hosts; ++i) source.shard_indices.push_back(i);
    source.bytes = std::make_shared<ReadyBytes>(std::string(4, '\0'));
    const ArrayHandle handle = NewHandle();
    const absl::Status made = controller_.MakeArray(session_, handle, spec, {source});
    CHECK(made.ok()) << made;
    return handle;
  }

  void Compile(int hosts, int args) {
    core::CompileRequest request;
    request.program = "emulated";
    request.devices = Devices(hosts);
    bool compiled = false;
    controller_.Compile(session_, request,
                        [&](absl::StatusOr<std::shared_ptr<const core::ExecutableView>> view) {
                          CHECK(view.ok()) << view.status();
                          executable_ = (*view)->handle;
                          compiled = true;
                        });
    control::Event event;
    control::Reply& reply = *event.mutable_reply();
    control::CompileResult& result = *reply.mutable_compile();
    result.set_name("emulated");
    result.set_serialized("emulated");
    result.set_has_output_shardings(true);
    for (int i = 0; i < args; ++i) {
      result.add_outputs()->set_dtype(static_cast<int>(model::DType::kF32));
      result.add_output_shardings(wire::SerializeOpSharding(model::OpSharding()));
    }
    for (size_t w = 0; w < links_.size() && !compiled; ++w) {
      control::Command command;
      if (!command.ParseFromString(*links_[w]->last) || !command.has_compile()) continue;
      reply.set_request(command.compile().request());
      controller_.OnEvent(WorkerId(static_cast<int32_t>(w)), incarnations_[w],
                          event.SerializeAsString());
    }
    CHECK(compiled);
  }

  ArrayHandle NewHandle() { return ArrayHandle(next_handle_++); }

  FakeClock clock_;
  FakeTimers timers_;
  FakeRandom random_;
  EmulatedMembership membership_;
  controller::Controller controller_;
  std::vector<std::shared_ptr<CountingLink>> links_;
  std::vector<Incarnation> incarnations_;
  SessionId session_;
  ExecutableHandle executable_;
  std::vector<ArrayHandle> values_;
  uint64_t next_handle_ = 1;
  uint64_t epoch_ = 1;
  uint64_t first_seq_ = 1;
  uint64_t launched_ = 0;
  uint64_t launches_before_ = 0;
  int64_t bytes_before_ = 0;
  double attach_us_ = 0;      // for all hosts to join
  int64_t attach_bytes_ = 0;  // sent to the first host while all join
  double execute_us_ = 0, destruct_us_ = 0, confirm_us_ = 0;
};

void Run(int hosts, int args, int confirm_every, int programs) {
  Emulation emulation(hosts, args);
  auto loop = [&](int count) {
    for (int i = 0; i < count; ++i) {
      for (int k = 0; k < confirm_every; ++k) emulation.Step();
      emulation.Confirm();
    }
  };
  loop(2);
  emulation.ResetCounts();
  loop(programs / confirm_every);
  CHECK(emulation.Ready());
  emulation.Step();
  CHECK(hosts == 1 || !emulation.Ready());
  emulation.Confirm();
  CHECK(emulation.Ready());
  emulation.Print(args, confirm_every, emulation.LoseOneHost());
}

}  // namespace
}  // namespace causeway::bench

int main(int argc, char** argv) {
  const bool quick = argc == 2 && std::strcmp(argv[1], "--quick") == 0;
  if (argc > 1 && !quick) {
    std::fprintf(stderr, "usage: %s [--quick]\n", argv[0]);
    return 2;
  }
  // Distributions build Abseil with its deadlock detector on, which costs every lock a global one.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  const std::vector<int> sizes =
      quick ? std::vector<int>{16, 64} : std::vector<int>{16, 64, 256, 512, 2048};
  for (int hosts : sizes) {
    const int programs = quick ? 16 : 400000 / (hosts + 100);
    for (int confirm_every : {1, 8}) causeway::bench::Run(hosts, 1, confirm_every, programs);
    causeway::bench::Run(hosts, 100, 8, programs / 8 + 8);
  }
  return 0;
}
