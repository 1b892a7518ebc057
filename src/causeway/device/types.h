// Plain values that cross the Device seam.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "causeway/device/host_bytes.h"

namespace causeway::device {

// All shards of one buffer on this host. Opaque: only the Device that made it can use it.
// Thread safety: may be shared and released on any thread.
class Array {
 public:
  virtual ~Array() = default;
  // Logical devices of the shards, in shard order.
  virtual const std::vector<int32_t>& devices() const = 0;
  // Bytes of all shards here; 0 when unknown.
  virtual int64_t bytes() const = 0;
};
using ArrayRef = std::shared_ptr<Array>;

// A program loaded onto physical devices of one epoch.
class Program {
 public:
  virtual ~Program() = default;
};

// Something that the device will have done. Await() may be called once, on any thread, and blocks
// until then; breaking off collectives (Device::AbortCollectives) ends a wait on a dead peer.
class Completion {
 public:
  virtual ~Completion() = default;
  virtual absl::Status Await() = 0;
};

// One shard in host memory: dense, row-major, sub-byte types one byte an element.
struct HostShard {
  HostBytes bytes;
  std::vector<int64_t> dims;
  int64_t element_bytes = 0;  // 0: text or tokens, whose elements have no size of their own
  int32_t dtype = 0;          // 0: whoever wants the bytes knows it
};

// A shard on its way to the host. Await() may be called once.
class HostCopy {
 public:
  virtual ~HostCopy() = default;
  virtual absl::StatusOr<HostShard> Await() = 0;
  // The bytes are there already: Await() takes no time.
  virtual bool here() const { return false; }
};

struct DeviceInfo {
  std::string platform;
  std::string device_kind;
  std::vector<std::string> memory_kinds;
  std::string runtime_version;
  std::string compile_target;  // what else compiled code depends on; opaque
  int num_devices = 0;
};

// Where this host stands in one epoch.
struct EpochSpec {
  uint64_t epoch = 0;
  int node = 0;              // of this host, in the coordination service
  std::string coordinator;   // host:port
  std::string callbacks;     // host:port of the relay of host callbacks; "" = none
  int num_nodes = 0;         // nodes of the published topology
  int worker = 0;
  int num_workers = 0;       // 1: this host has no peers, ever
  int devices_per_host = 0;  // logical device d is device d % devices_per_host of its host
};

struct CompileRequest {
  std::string code;
  std::string options;  // xla.CompileOptionsProto without a device assignment
  int num_devices = 0;
  int kind = 0;
};

struct ArrayType {
  int32_t dtype = 0;
  std::vector<int64_t> dims;  // global
};

// Facts of a compiled program that hold for whatever devices it is loaded onto.
struct Compiled {
  std::string serialized;  // empty: this program cannot be serialised, compile it where it runs
  std::string name;
  std::string fingerprint;
  std::optional<std::vector<ArrayType>> parameters;  // absent: unknown
  std::vector<ArrayType> outputs;
  std::optional<std::vector<std::string>> parameter_shardings;  // xla.OpSharding
  std::optional<std::vector<std::string>> output_shardings;
  absl::Status parameter_layouts_status;
  std::vector<std::vector<int64_t>> parameter_layouts;  // minor to major
  absl::Status output_layouts_status;
  std::vector<std::vector<int64_t>> output_layouts;
  std::vector<std::string> output_memory_kinds;
  std::vector<int32_t> donated_inputs;  // inputs whose memory an output may really take
  absl::Status memory_stats_status;
  std::map<std::string, int64_t> memory_stats;
  int64_t generated_code_bytes = 0;
  double compile_seconds = 0;
};

// A program as it is kept on a worker.
struct ProgramSource {
  std::string serialized;
  std::string code;
  std::string options;
  int num_devices = 0;
  int num_outputs = 0;
  int kind = 0;
  std::string name;
};

struct LoadRequest {
  std::shared_ptr<const ProgramSource> source;
  std::vector<int32_t> devices;  // logical, execution order
  std::vector<int32_t> nodes;    // node of each worker in this epoch; 0 = none
  std::vector<std::string> output_memory_kinds;
  std::vector<int32_t> output_dtypes;
  bool host_callbacks = false;   // the program calls its client's process
};

struct Launched {
  std::vector<ArrayRef> outputs;
  std::unique_ptr<Completion> completion;  // null: it has ended well already
  // The outputs know nothing of a failure that only the completion will tell: nobody may use them
  // before.
  bool held = false;
};

// Where the value of one new shard comes from.
struct ShardSource {
  enum class Kind { kHost, kAlias, kCopy };
  Kind kind = Kind::kHost;
  int32_t device = 0;  // logical, on this host
  std::vector<int64_t> dims;
  HostBytes bytes;                     // kHost
  std::vector<int64_t> byte_strides;   // kHost; empty = dense row-major
  ArrayRef source;                     // kAlias, kCopy
  int32_t source_device = 0;           // kAlias, kCopy
};

struct BuildRequest {
  int32_t dtype = 0;
  std::string memory_kind;  // "" = the device's default
  std::vector<ShardSource> shards;  // this host's, in device-list order
};

struct Introspection {
  std::string text;
  std::map<std::string, double> numbers;
};

// Marks an error as "a peer went away": the cause is elsewhere.
absl::Status PeerFailure(absl::Status status);
bool IsPeerFailure(const absl::Status& status);

}  // namespace causeway::device
