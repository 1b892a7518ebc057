// Plain values of the control stream and their encoding, for the head's side.
//
// Encoders return one serialized control::Command; the same bytes may go to several workers.
// Source of the fields: proto/control.proto.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "causeway/base/strong_id.h"
#include "causeway/model/dtype.h"
#include "causeway/model/sharding.h"

namespace causeway::wire {

using Encoded = std::shared_ptr<const std::string>;

struct NodeMap {
  std::vector<int> nodes;                     // by worker; 0 = not a member
  std::vector<std::string> data_addresses;    // by worker; "" = dead
  std::vector<std::string> memories;          // by worker: which shared memory it sees
};

struct Welcome {
  WorkerId worker;
  Incarnation incarnation;
  int devices_per_host = 0;
  int num_workers = 0;
  std::string coordinator;
  int num_nodes = 0;
  std::string platform;
  int max_inflight_launches = 8;
  uint64_t heartbeat_ms = 0;
  std::string token;
  std::string push_token;
  std::string callbacks;  // host:port of the relay of host callbacks
  bool checksums = false;  // every transfer bears them
  std::string sentinel;   // host:port where its death is listened for
};

// Where the bytes of a shard, or of a piece of one, come from.
struct FromInline {
  std::string data;
  std::optional<std::vector<int64_t>> byte_strides;
};
struct FromShard {  // alias or copy, by context
  BufferId buffer;
  DeviceId device;
  bool copy = false;
};
struct FromTransfer {
  TransferId transfer;
};
struct PieceBuild {
  std::vector<int64_t> start;  // in the new shard
  std::vector<int64_t> dims;
  // A part of a local shard...
  BufferId buffer;
  DeviceId device;
  std::vector<int64_t> source_start;
  // ...or, when not 0, dense bytes that arrive.
  TransferId transfer;
};
struct FromPieces {
  std::vector<PieceBuild> pieces;
};
struct ShardBuild {
  DeviceId device;
  std::vector<int64_t> dims;
  std::variant<FromInline, FromShard, FromTransfer, FromPieces> source;
};

// The payload of ControlFrame::kEnd and kNoLocal. Bytes that are no status read as UNKNOWN.
Encoded EncodeEnd(const absl::Status& status);
absl::Status DecodeEnd(absl::string_view payload);

Encoded EncodeWelcome(const Welcome& welcome);
// Both are the same for every worker.
Encoded EncodeOpenEpoch(EpochId epoch, const NodeMap& nodes, uint64_t drain_ms);
Encoded EncodeSetNodes(EpochId epoch, const NodeMap& nodes);
Encoded EncodeAbortEpoch(EpochId epoch, const absl::Status& cause);
Encoded EncodeBuild(BufferId buffer, model::DType dtype, absl::string_view memory_kind,
                    absl::Span<const DeviceId> devices, absl::Span<const ShardBuild> shards);
// `box` absent: the whole shard.
Encoded EncodeSend(TransferId transfer, BufferId buffer, DeviceId device, WorkerId to,
                   const std::optional<model::Box>& box);
Encoded EncodeFetch(RequestId request, BufferId buffer, absl::Span<const DeviceId> devices);
struct FilePart {
  BufferId buffer;
  DeviceId device;
  int64_t offset = 0;  // of the array in the file
  model::Shape dims;   // of the array
  std::vector<int64_t> start;  // of the shard in it
};
Encoded EncodeFetchFile(RequestId request, absl::string_view path,
                        absl::Span<const FilePart> parts);
Encoded EncodeAwaitReady(RequestId request, absl::Span<const BufferId> buffers);
Encoded EncodeCompile(RequestId request, ProgramId program, absl::string_view code,
                      absl::string_view options, int num_devices, int kind);
struct LoadProgram {
  ProgramId program;
  absl::string_view serialized;
  absl::string_view code;
  absl::string_view options;
  int num_devices = 0;
  int num_outputs = 0;
  int kind = 0;
  absl::string_view name;
};
Encoded EncodeLoadProgram(const LoadProgram& load);
Encoded EncodeBind(BindingId binding, ProgramId program, absl::Span<const DeviceId> devices,
                   absl::Span<const std::string> output_memory_kinds,
                   absl::Span<const model::DType> output_dtypes, bool host_callbacks = false);
// What a host program returns, and on which devices.
struct HostOutput {
  model::DType dtype = model::DType::kInvalid;
  std::string memory_kind;
  std::vector<std::pair<DeviceId, model::Shape>> shards;
};
Encoded EncodeHostBind(BindingId binding, ProgramId program, absl::Span<const DeviceId> devices,
                       absl::Span<const HostOutput> outputs, SessionId session);
Encoded EncodeUnbind(BindingId binding);
Encoded EncodeDropProgram(ProgramId program);
struct Launch {
  BindingId binding;
  EpochId epoch;
  LaunchSeq seq;
  RequestId request;
  absl::Span<const BufferId> args;
  absl::Span<const BufferId> outputs;
  absl::Span<const int> protect;
  int64_t stream = 0;
};
Encoded EncodeLaunch(const Launch& launch);
Encoded EncodeFree(absl::Span<const BufferId> buffers);
Encoded EncodeIntrospect(RequestId request, ProgramId program, absl::string_view what);
Encoded EncodePing(uint64_t number);
Encoded EncodeShutdown(absl::string_view reason);
// Every member of launch `seq` is ready to start it.
Encoded EncodeProceed(EpochId epoch, LaunchSeq seq);
// In stream order: what `from` still owes to this worker will never come.
Encoded EncodeFailTransfers(WorkerId from, const absl::Status& cause);
Encoded EncodeFailTransfer(TransferId transfer, const absl::Status& cause);

// ---------------------------------------------------------------- events

struct CompileResult {
  std::string serialized;
  std::string name;
  std::string fingerprint;
  std::optional<std::vector<model::ArrayType>> parameters;  // absent: unknown
  std::vector<model::DType> output_dtypes;
  std::vector<model::Shape> output_shapes;
  std::optional<std::vector<std::string>> parameter_shardings;
  std::optional<std::vector<std::string>> output_shardings;
  absl::StatusOr<std::vector<std::vector<int64_t>>> parameter_layouts;
  absl::StatusOr<std::vector<std::vector<int64_t>>> output_layouts;
  std::vector<std::string> output_memory_kinds;
  std::vector<int> donated_inputs;
  absl::StatusOr<std::map<std::string, int64_t>> memory_stats;
  int64_t generated_code_bytes = 0;
  double compile_seconds = 0;
};

struct ReplyEvent {
  RequestId request;
  absl::Status status;
  std::optional<CompileResult> compile;
  std::string compile_bytes;  // the same, as ParseCompileResult takes it
  std::string text;
  std::map<std::string, double> numbers;
};
struct FetchDataEvent {
  RequestId request;
  DeviceId device;
  int64_t offset = 0;
  int64_t total = 0;
  absl::Cord bytes;
};
struct LaunchDoneEvent {
  EpochId epoch;
  LaunchSeq seq;
};
struct LaunchFailedEvent {
  EpochId epoch;
  LaunchSeq seq;
  absl::Status status;
  bool peer_failure = false;
};
// The worker could start this launch, the first of its binding in the epoch, and waits for Proceed.
struct AtRendezvousEvent {
  EpochId epoch;
  LaunchSeq seq;
};
struct EpochOpenedEvent {
  EpochId epoch;
  absl::Status status;
  int adopted_buffers = 0;
  uint64_t drain_us = 0, client_us = 0, adopt_us = 0;
};
// How far a worker is with launches over several workers.
struct LaunchProgress {
  EpochId epoch;
  LaunchSeq admitted;  // the latest that was started in the epoch
  LaunchSeq waiting;   // the next one, if it has to wait; 0 = none has come
  std::string waits_for;
};
struct PongEvent {
  uint64_t number = 0;
  LaunchProgress progress;
  std::map<std::string, int64_t> stats;
  std::map<std::string, int64_t> transfers;
  std::string transfer_fallback;
};
struct TransferFailedEvent {
  TransferId transfer;
  WorkerId to;
  absl::Status status;
};
using Event = std::variant<ReplyEvent, FetchDataEvent, LaunchDoneEvent, LaunchFailedEvent,
                           AtRendezvousEvent, EpochOpenedEvent, PongEvent,
                           TransferFailedEvent>;

// INVALID_ARGUMENT when the bytes are no ReplyEvent::compile_bytes.
absl::StatusOr<CompileResult> ParseCompileResult(absl::string_view bytes);

// INVALID_ARGUMENT when the bytes are no event, or an event that may not come here.
absl::StatusOr<Event> DecodeEvent(absl::string_view bytes);

}  // namespace causeway::wire
