// One host's XLA runtime, seen by the worker: the seam between our C++ and whatever computes.
//
// Everything that a device does is asynchronous: calls return values that will exist, and errors
// of the computation itself come out of Completion and HostCopy. Arrays belong to the epoch in
// which they were made; Adopt() carries them into the current one.
//
// Thread safety: OpenEpoch, Load, Launch, Build, StartHostCopy, Adopt, Idle and ForgetOldEpochs come
// one at a time (the order of Launch calls is the order of collectives). Compile, Introspect,
// AwaitReady, LoadHostProgram, OverdueFailure and AbortCollectives may come from any thread at any
// time. All values may be released anywhere.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "causeway/device/host_program.h"
#include "causeway/device/types.h"

namespace causeway::device {

class Device {
 public:
  virtual ~Device() = default;

  // Fixed after construction.
  virtual const DeviceInfo& info() const = 0;

  // Makes the client of a new epoch current. The older one lives on as long as arrays of it do.
  // UNAVAILABLE: the coordination service does not answer.
  virtual absl::Status OpenEpoch(const EpochSpec& spec) = 0;

  // Breaks off collectives in flight, so that those who wait for a dead peer get an error.
  // Returns how many connections were cut. May be called again until nothing is in flight.
  virtual int AbortCollectives() = 0;

  // A launch over several devices whose host callback fails goes on without it to its end. The
  // failure of one that has not come to its end for too long, or OK. Waits for nothing.
  virtual absl::Status OverdueFailure() { return absl::OkStatus(); }

  // Compiles for any `num_devices` of the cluster, whichever they will be.
  virtual absl::StatusOr<Compiled> Compile(const CompileRequest& request) = 0;

  // Loads a program onto physical devices of the current epoch.
  virtual absl::StatusOr<std::shared_ptr<Program>> Load(const LoadRequest& request) = 0;

  // Runs a program of the current epoch. `protect` names arguments that the program would take
  // over but that must survive: they are copied first. `place` is the launch's in the cluster's
  // order, 0 for one of this host alone. An error means that nothing was started.
  virtual absl::StatusOr<Launched> Launch(Program& program, absl::Span<const ArrayRef> args,
                                          absl::Span<const int32_t> protect,
                                          uint64_t place) = 0;

  // Makes an array of the current epoch. Host bytes are kept alive as long as they are needed.
  virtual absl::StatusOr<ArrayRef> Build(const BuildRequest& request) = 0;

  // Starts to copy one shard to the host; a later donation of the array does not disturb it.
  virtual absl::StatusOr<std::unique_ptr<HostCopy>> StartHostCopy(const ArrayRef& array,
                                                                  int32_t device) = 0;

  // Blocks until all arrays are computed; the first error otherwise. An array that was donated
  // meanwhile counts as computed.
  virtual absl::Status AwaitReady(absl::Span<const ArrayRef> arrays) = 0;

  // The same value in the current epoch, without a copy where memory allows. Waits for the value.
  virtual absl::StatusOr<ArrayRef> Adopt(const ArrayRef& array) = 0;

  // What a program looks like after compilation: "text" or "cost".
  virtual absl::StatusOr<Introspection> Introspect(const ProgramSource& source,
                                                   const std::string& what) = 0;

  // Makes a program ready that runs in host memory. May run code of the user's.
  virtual absl::StatusOr<std::shared_ptr<HostProgram>> LoadHostProgram(
      const HostProgramSpec& spec) = 0;

  // Nothing is to do at the moment: a chance to release what had to wait.
  virtual void Idle() = 0;
  // An epoch was opened some time ago: frees clients of older ones that no array needs any more. May
  // take some milliseconds.
  virtual void ForgetOldEpochs() = 0;
};

}  // namespace causeway::device
