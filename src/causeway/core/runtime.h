// The door between a client front end and the controller: everything a session can ask for.
//
// The front end (proxy/) turns wire messages into these calls and nothing else; the controller
// (controller/) implements them. All arguments are plain values, so the two may live in different
// processes. Handles are per session; a handle's table entry exists as soon as the call that names
// it returns, whatever becomes of the work behind it.
//
// Errors: a call that names result handles and fails binds every one of them to the error, and
// also returns it. Using such a handle later gives the same error (the first cause travels on).
// Unknown handles: INVALID_ARGUMENT for use, NOT_FOUND for destruction.
// A lost slice never fails a call here; it shows as DATA_LOSS when a value is read or awaited.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "causeway/base/shared_memory.h"
#include "causeway/base/strong_id.h"
#include "causeway/model/dtype.h"
#include "causeway/model/sharding.h"
#include "causeway/model/topology.h"

namespace causeway::core {

// Called once, from any thread, possibly before the starting call returns. Must not block and must
// not call back into the runtime under a lock of its own that the runtime's caller holds.
using StatusCallback = absl::AnyInvocable<void(absl::Status) &&>;

struct ArraySpec {
  model::DType dtype = model::DType::kInvalid;
  model::Shape shape;  // global
  model::ShardingRef sharding;
  std::string layout;  // text as in "{1,0}"; empty = the device's default
};

enum class CopySemantics { kAlwaysCopy, kReuseInput, kDonateInput };

// Bytes on their way from a client: dense row-major unless strides say otherwise; sub-byte types
// one byte an element. Immutable once ready.
class HostBytes {
 public:
  virtual ~HostBytes() = default;
  // Calls `done` exactly once: now, if the bytes are here, else when they come or the session ends.
  virtual void OnReady(absl::AnyInvocable<void(absl::StatusOr<absl::Cord>) &&> done) = 0;
  // Once they are ready: the file in shared memory that holds exactly these bytes, or null.
  virtual std::shared_ptr<const SharedFile> file() { return nullptr; }
};

// One host buffer that feeds one or more shards of an array.
struct HostShards {
  std::vector<int> shard_indices;
  model::Shape shape;  // of the buffer
  std::optional<std::vector<int64_t>> byte_strides;
  // true: the buffer holds the whole array and each shard takes its own part of it.
  bool holds_whole_array = false;
  std::shared_ptr<HostBytes> bytes;
};

// One run of shards moved by RemapArrays: input shard from.start + k*from.step -> output shard
// to.start + k*to.step.
struct ShardInterval {
  int64_t start = 0, end = 0, step = 1;
};
struct RemapMapping {
  int in_array = 0;
  int out_array = 0;
  std::vector<ShardInterval> from;
  std::vector<ShardInterval> to;
};

// kFetch: writes its arguments, dense and each from a multiple of kFetchAlignment bytes on, into a
// file in shared memory that the client has made. `program` is the files' path without the number of
// the execution, which counts from 1. No outputs; the execution's status tells when all is there.
enum class ProgramKind { kXla, kPlugin, kColocatedPython, kFetch };
inline constexpr int64_t kFetchAlignment = 64;

struct CompileRequest {
  ProgramKind kind = ProgramKind::kXla;
  std::string program;  // portable StableHLO artifact, plugin text, or pickled function
  // kXla: CompileOptionsProto without its device assignment; opaque to all but the worker's XLA.
  std::string options;
  std::vector<DeviceId> devices;  // execution order
  std::string name;                       // kColocatedPython
  std::vector<ArraySpec> input_specs;     // kColocatedPython
  std::vector<ArraySpec> output_specs;    // kColocatedPython
};

// What a compile yields, whatever the devices: filled by the worker that compiled.
struct ProgramInfo {
  std::string name;
  std::string fingerprint;  // empty: unknown
  std::optional<std::vector<model::ArrayType>> parameters;  // absent: unknown
  std::vector<model::DType> output_dtypes;
  std::vector<model::Shape> output_shapes;  // global
  // Serialized xla.OpSharding each; absent when the program has none (one device).
  std::optional<std::vector<std::string>> parameter_shardings;
  std::optional<std::vector<std::string>> output_shardings;
  // Minor-to-major orders; a status where the backend cannot tell.
  absl::StatusOr<std::vector<std::vector<int64_t>>> parameter_layouts;
  absl::StatusOr<std::vector<std::vector<int64_t>>> output_layouts;
  std::vector<std::string> output_memory_kinds;  // one an output; empty = all default
  std::vector<int> donated_inputs;               // really aliased by the compiled code
  absl::StatusOr<std::map<std::string, int64_t>> memory_stats;  // CompiledMemoryStatsProto fields
  int64_t generated_code_bytes = 0;
};

struct ExecutableView {
  ExecutableHandle handle;
  std::shared_ptr<const ProgramInfo> info;
  std::vector<DeviceId> devices;
  std::vector<ArraySpec> outputs;
};

struct ExecuteRequest {
  ExecutableHandle executable;
  std::vector<ArrayHandle> args;
  std::vector<int> non_donatable;
  bool want_status = false;
  // Executions of host programs with the same number run in order; others may run side by side.
  int64_t stream = 0;
  std::vector<ArrayHandle> results;  // empty: the runtime names them
  StatusHandle status;               // 0: the runtime names it (when want_status)
};

struct ExecuteResult {
  std::vector<ArrayHandle> results;
  StatusHandle status;
  // Where the outputs depend on the arguments; else they are the executable's.
  std::vector<ArraySpec> outputs;
};

// "tpu"/"gpu" -> microseconds; empty where the backend does not measure.
using DeviceTimes = std::map<std::string, double>;

// What a front end must tell a client about the cluster.
struct ClusterView {
  std::string platform;          // "cpu", "cuda": what the workers really run
  std::string platform_version;
  std::vector<std::string> memory_kinds;  // the first is the default
  std::vector<model::Device> devices;
};

class Runtime {
 public:
  virtual ~Runtime() = default;

  virtual ClusterView Describe() = 0;

  // Sessions. Closing one frees all it held and cancels what waits in it; unknown ids are ignored.
  virtual SessionId OpenSession(const std::string& peer) = 0;
  virtual void CloseSession(SessionId session) = 0;

  // False: the session has queued as much work as it may, and `resume` is called once, when the
  // workers have caught up or the session is closed. For the front end to stop reading meanwhile.
  virtual bool MayGoOn(SessionId session, absl::AnyInvocable<void() &&>& resume) = 0;
  // False: the execution would stand in the one order of launches on several workers, before those
  // of other sessions, while bytes that it needs are still on their way from the client. `resume`
  // is called once, when that has changed or they will never come; then it is to be asked again.
  virtual bool MayExecute(SessionId session, ExecutableHandle executable,
                          const std::vector<ArrayHandle>& args,
                          absl::AnyInvocable<void() &&> resume) = 0;

  // Handles the server makes are >= 2^48, unique in the session over arrays, executables, statuses.
  virtual uint64_t NewServerHandle(SessionId session) = 0;

  // Arrays.
  virtual absl::Status MakeArray(SessionId session, ArrayHandle result, ArraySpec spec,
                                 std::vector<HostShards> sources) = 0;
  virtual void MakeErrorArrays(SessionId session, const std::vector<ArrayHandle>& results,
                               absl::Status error) = 0;
  virtual absl::Status Assemble(SessionId session, ArrayHandle result, ArraySpec spec,
                                const std::vector<ArrayHandle>& parts, CopySemantics copy) = 0;
  virtual absl::Status Disassemble(SessionId session, ArrayHandle array,
                                   const std::vector<ArrayHandle>& results,
                                   CopySemantics copy) = 0;
  // The number of shards of an array (Disassemble without client-made handles needs it).
  virtual absl::StatusOr<int> NumShards(SessionId session, ArrayHandle array) = 0;
  virtual absl::Status FullyReplicatedShard(SessionId session, ArrayHandle array,
                                            ArrayHandle result, CopySemantics copy) = 0;
  // Shard i of each array goes to devices[i] (empty: stays), in `memory_kind` (nullopt: stays).
  virtual absl::Status CopyArrays(SessionId session, const std::vector<ArrayHandle>& arrays,
                                  const std::vector<DeviceId>& devices,
                                  const std::optional<std::string>& memory_kind,
                                  CopySemantics copy, const std::vector<ArrayHandle>& results) = 0;
  virtual absl::Status RemapArrays(SessionId session, const std::vector<ArrayHandle>& arrays,
                                   const std::vector<ArraySpec>& outputs,
                                   const std::vector<RemapMapping>& mappings, CopySemantics copy,
                                   const std::vector<ArrayHandle>& results) = 0;
  virtual absl::Status ReshardArrays(SessionId session, const std::vector<ArrayHandle>& arrays,
                                     const std::vector<ArraySpec>& outputs, CopySemantics copy,
                                     const std::vector<ArrayHandle>& results) = 0;
  virtual absl::Status BitcastArrays(SessionId session, const std::vector<ArrayHandle>& arrays,
                                     const std::vector<ArraySpec>& outputs, CopySemantics copy,
                                     const std::vector<ArrayHandle>& results) = 0;

  // The whole array as host bytes (dense row-major, or with `byte_strides`).
  virtual void CopyToHost(
      SessionId session, ArrayHandle array, std::optional<std::vector<int64_t>> byte_strides,
      absl::AnyInvocable<void(absl::StatusOr<absl::Cord>) &&> done) = 0;
  // OK when every value is computed and safe to read, else the first error.
  virtual void AwaitReady(SessionId session, const std::vector<ArrayHandle>& arrays,
                          StatusCallback done) = 0;

  virtual absl::Status Delete(SessionId session, const std::vector<ArrayHandle>& arrays) = 0;
  virtual absl::StatusOr<bool> IsDeleted(SessionId session, ArrayHandle array) = 0;
  // Forgets handles. NOT_FOUND lists the unknown ones; the known ones are gone all the same.
  virtual absl::Status Destruct(SessionId session, const std::vector<ArrayHandle>& arrays) = 0;

  // Programs.
  virtual void Compile(
      SessionId session, CompileRequest request,
      absl::AnyInvocable<void(absl::StatusOr<std::shared_ptr<const ExecutableView>>) &&> done) = 0;
  virtual absl::StatusOr<std::shared_ptr<const ExecutableView>> GetExecutable(
      SessionId session, ExecutableHandle executable) = 0;
  virtual absl::StatusOr<ExecuteResult> Execute(SessionId session,
                                                const ExecuteRequest& request) = 0;
  // One-shot: the status handle is forgotten when `done` is called.
  virtual void AwaitExecution(SessionId session, StatusHandle status,
                              absl::AnyInvocable<void(absl::StatusOr<DeviceTimes>) &&> done) = 0;
  virtual absl::Status DestructExecutable(SessionId session, ExecutableHandle executable) = 0;
  virtual void GetProgramText(
      SessionId session, ExecutableHandle executable,
      absl::AnyInvocable<void(absl::StatusOr<std::string>) &&> done) = 0;
  virtual void GetCostAnalysis(
      SessionId session, ExecutableHandle executable,
      absl::AnyInvocable<void(absl::StatusOr<std::map<std::string, double>>) &&> done) = 0;
};

}  // namespace causeway::core
