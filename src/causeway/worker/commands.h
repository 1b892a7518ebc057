// Plain values of the control stream on the worker's side: commands in, events out.
//
// Source of the fields: proto/control.proto. Encoding and decoding: command_codec.h.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "causeway/base/strong_id.h"
#include "causeway/device/types.h"

namespace causeway::worker {

struct NodeMap {
  std::vector<int32_t> nodes;
  std::vector<std::string> data_addresses;
  std::vector<std::string> memories;  // which shared memory each worker sees
};

struct Welcome {
  WorkerId worker;
  Incarnation incarnation;
  int devices_per_host = 0;
  int num_workers = 0;
  std::string coordinator;
  int num_nodes = 0;
  std::string platform;
  int max_inflight_launches = 0;
  uint64_t heartbeat_ms = 0;
  std::string token;       // for the Bulk stream
  std::string push_token;  // for Push between workers
  std::string callbacks;   // host:port of the relay of host callbacks; "" = none
  bool checksums = false;  // every transfer bears them
  std::string sentinel;    // host:port where this worker's death is listened for; "" = nowhere
};
struct OpenEpoch {
  EpochId epoch;
  NodeMap nodes;  // this worker's own among them
  uint64_t drain_ms = 0;
};
struct SetNodes {
  EpochId epoch;
  NodeMap nodes;
};
struct AbortEpoch {
  EpochId epoch;
  absl::Status cause;
};

// A piece of a shard that is put together in host memory.
struct Piece {
  std::vector<int64_t> start, dims;  // in the new shard
  TransferId transfer;               // when not 0
  BufferId buffer;                   // else a part of a local shard
  int32_t device = 0;
  std::vector<int64_t> source_start;
};
struct ShardBuild {
  enum class Kind { kInline, kAlias, kCopy, kTransfer, kPieces };
  Kind kind = Kind::kInline;
  int32_t device = 0;
  std::vector<int64_t> dims;
  device::HostBytes bytes;            // kInline
  std::vector<int64_t> byte_strides;  // kInline; empty = dense
  BufferId buffer;                    // kAlias, kCopy
  int32_t source_device = 0;          // kAlias, kCopy
  TransferId transfer;                // kTransfer
  std::vector<Piece> pieces;          // kPieces
};
struct Build {
  BufferId buffer;
  int32_t dtype = 0;
  std::string memory_kind;
  std::vector<ShardBuild> shards;
};
struct Send {
  TransferId transfer;
  BufferId buffer;
  int32_t device = 0;
  WorkerId to;
  bool whole = true;
  std::vector<int64_t> start, dims;
};
// One chunk of a transfer, as it comes from the network.
struct Chunk {
  TransferId transfer;
  int64_t offset = 0;
  int64_t total = 0;
  std::string bytes;
  absl::Status error;
  std::vector<int64_t> byte_strides;
  std::optional<uint64_t> checksum;  // xxh3 of the bytes
  int attempt = 0;
  // All bytes at once, somewhere else:
  std::string segment;  // a peer's
  std::string file;     // the head's
  int64_t file_offset = 0;
};
struct Fetch {
  RequestId request;
  BufferId buffer;
  std::vector<int32_t> devices;
};
// One shard's box of a dense array in a file.
struct FilePart {
  BufferId buffer;
  int32_t device = 0;
  int64_t offset = 0;         // of the array in the file
  std::vector<int64_t> dims;  // of the array
  std::vector<int64_t> start;  // of the shard in it
};
struct FetchFile {
  RequestId request;
  std::string path;
  std::vector<FilePart> parts;
};
struct AwaitReady {
  RequestId request;
  std::vector<BufferId> buffers;
};
struct Compile {
  RequestId request;
  ProgramId program;
  device::CompileRequest what;
};
struct LoadProgram {
  ProgramId program;
  device::ProgramSource source;
};
struct Bind {
  BindingId binding;
  ProgramId program;
  std::vector<int32_t> devices;
  std::vector<std::string> output_memory_kinds;
  std::vector<int32_t> output_dtypes;
  bool host_callbacks = false;
  // Host programs only.
  struct Shard {
    int32_t device = 0;
    std::vector<int64_t> dims;
  };
  struct Output {
    int32_t dtype = 0;
    std::string memory_kind;
    std::vector<Shard> shards;  // on every worker
  };
  std::vector<Output> host_outputs;
  SessionId session;
};
struct Unbind {
  BindingId binding;
};
struct DropProgram {
  ProgramId program;
};
struct Launch {
  BindingId binding;
  EpochId epoch;
  LaunchSeq seq;  // 0 = this worker only
  std::vector<BufferId> args, outputs;
  std::vector<int32_t> protect;
  RequestId request;
  int64_t stream = 0;  // host programs only
};
struct Free {
  std::vector<BufferId> buffers;
};
struct Introspect {
  RequestId request;
  ProgramId program;
  std::string what;
};
struct Ping {
  uint64_t number = 0;
};
// Transfers that earlier commands await from `from` will never come.
struct FailTransfers {
  WorkerId from;
  absl::Status cause;
};
// Everybody is at the first launch of a binding: it may start.
struct Proceed {
  EpochId epoch;
  LaunchSeq seq;
};
// This transfer will never come.
struct FailTransfer {
  TransferId transfer;
  absl::Status cause;
};
struct Shutdown {
  std::string reason;
};

using Command = std::variant<Welcome, OpenEpoch, SetNodes, AbortEpoch, Build, Send, Chunk, Fetch,
                             AwaitReady, Compile, LoadProgram, Bind, Unbind, DropProgram, Launch,
                             Free, Introspect, Ping, FailTransfers, Proceed, FailTransfer,
                             FetchFile, Shutdown>;

// ---------------------------------------------------------------- events

struct Hello {
  WorkerId worker;
  int pid = 0;
  std::string host;
  std::string data_address;
  device::DeviceInfo device;
  std::string token;   // Bulk only
  std::string memory;
  bool spare = false;  // any place will do, also later
};
struct Reply {
  RequestId request;
  absl::Status status;
  std::optional<device::Compiled> compiled;
  std::string text;
  std::map<std::string, double> numbers;
};
struct FetchData {
  RequestId request;
  int32_t device = 0;
  int64_t offset = 0;
  device::HostBytes bytes;  // of the whole shard
  int64_t size = 0;         // of this chunk
};
struct LaunchDone {
  EpochId epoch;
  LaunchSeq seq;
};
struct LaunchFailed {
  EpochId epoch;
  LaunchSeq seq;
  absl::Status status;
};
// This worker could start the first launch of a binding and waits for Proceed.
struct AtRendezvous {
  EpochId epoch;
  LaunchSeq seq;
};
struct EpochOpened {
  EpochId epoch;
  absl::Status status;
  int adopted_buffers = 0;
  uint64_t drain_us = 0, client_us = 0, adopt_us = 0;
};
struct Pong {
  uint64_t number = 0;
  int inflight = 0;
  int64_t resident_bytes = 0, buffers = 0, buffer_bytes = 0;
  int open_files = 0, threads = 0;
  int64_t compiles = 0, loads = 0, launches = 0;
  // Multi-worker launches: the open epoch, the latest one that was started in it (or could be, were
  // its peers there), and the next one if it has to wait (0: none has come), with what it waits for.
  EpochId epoch;
  LaunchSeq admitted, waiting;
  std::string waits_for;
  std::map<std::string, int64_t> transfers;
  std::string transfer_fallback;
};
struct TransferFailed {
  TransferId transfer;
  WorkerId to;
  absl::Status status;
};
using Event = std::variant<Hello, Reply, FetchData, LaunchDone, LaunchFailed, AtRendezvous,
                           EpochOpened, Pong, TransferFailed>;

}  // namespace causeway::worker
