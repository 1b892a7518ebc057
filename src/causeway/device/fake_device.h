// A device in host memory, without Python: runs fake programs (fake_program.h) in launch order.
//
// For unit tests and emulated hosts. Like XLA it is asynchronous (a collective waits for its peers
// while calls return), skips a computation whose input is in error, and does not notice when
// launches of different hosts pair up wrongly.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "causeway/device/device.h"
#include "causeway/device/fake_fabric.h"
#include "causeway/device/fake_program.h"

namespace causeway::device {

// One shard's value, now or later. Guarded by the fabric's lock.
struct FakeCell {
  bool done = false;
  absl::Status status;
  std::vector<int64_t> dims;
  std::vector<double> values;
};
using FakeCellRef = std::shared_ptr<FakeCell>;

// How a simulation gives the device time and trouble. All are called under the fabric's lock and
// must not call back into it.
struct FakeDeviceHooks {
  // Before each computation: `go` (thread-safe, may be dropped) lets it begin.
  std::function<void(std::function<void()> go)> pace;
  // A computation has ended: completions and copies may be there now.
  std::function<void()> progressed;
  // Of a computation that is about to begin: not OK skips it, as an allocation that failed does.
  std::function<absl::Status()> trouble;
  // What OverdueFailure() says.
  std::function<absl::Status()> overdue;
  // A launch that has ended well when Launch() returns comes without a completion.
  bool prompt = false;
};

// Thread safety: as Device; the fabric's lock guards the stream.
class FakeDevice final : public Device {
 public:
  // `fabric` must outlive the device and everything made by it.
  FakeDevice(int num_devices, FakeFabric* fabric, FakeDeviceHooks hooks = {});
  ~FakeDevice() override;
  // The host is gone without a word: its peers wait for ever, nothing here happens any more.
  void Vanish();

  const DeviceInfo& info() const override { return info_; }
  absl::Status OpenEpoch(const EpochSpec& spec) override;
  int AbortCollectives() override;
  absl::Status OverdueFailure() override;
  absl::StatusOr<Compiled> Compile(const CompileRequest& request) override;
  absl::StatusOr<std::shared_ptr<Program>> Load(const LoadRequest& request) override;
  absl::StatusOr<Launched> Launch(Program& program, absl::Span<const ArrayRef> args,
                                  absl::Span<const int32_t> protect, uint64_t place) override;
  absl::StatusOr<ArrayRef> Build(const BuildRequest& request) override;
  absl::StatusOr<std::unique_ptr<HostCopy>> StartHostCopy(const ArrayRef& array,
                                                          int32_t device) override;
  absl::Status AwaitReady(absl::Span<const ArrayRef> arrays) override;
  absl::StatusOr<ArrayRef> Adopt(const ArrayRef& array) override;
  // "fake host add N": every f32 argument plus N. "fake host fail TEXT": INVALID_ARGUMENT.
  absl::StatusOr<std::shared_ptr<HostProgram>> LoadHostProgram(
      const HostProgramSpec& spec) override;
  absl::StatusOr<Introspection> Introspect(const ProgramSource& source,
                                           const std::string& what) override;
  void Idle() override {}
  void ForgetOldEpochs() override {}

 private:
  struct Computation;
  void Run();  // as far as the stream goes
  void Force();
  bool Step(const std::shared_ptr<Computation>& c);

  FakeFabric* const fabric_;
  DeviceInfo info_;
  EpochSpec spec_;
  std::set<int> own_ids_;
  std::deque<std::shared_ptr<Computation>> stream_;
  FakeDeviceHooks hooks_;
  bool running_ = false;
  bool forced_ = false;  // somebody waits: what can run without peers does so now
};

// Whether Await() on a completion of a FakeDevice would return at once (tests without threads).
bool FakeCompletionIsReady(const Completion& completion);
bool FakeCopyIsReady(const HostCopy& copy);
bool FakeArrayIsReady(const Array& array);

}  // namespace causeway::device
