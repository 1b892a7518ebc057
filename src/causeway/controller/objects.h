// What the controller keeps: device lists, buffers, arrays, programs, sessions, workers.
//
// All of it is guarded by the controller's lock.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/time/time.h"
#include "causeway/base/strong_id.h"
#include "causeway/callbacks/programs.h"
#include "causeway/core/gate.h"
#include "causeway/core/pulse.h"
#include "causeway/core/runtime.h"
#include "causeway/core/worker_link.h"
#include "causeway/model/dtype.h"
#include "causeway/model/sharding.h"
#include "causeway/wire/control_codec.h"
#include "causeway/wire/plugin_program.h"

namespace causeway::controller {

// An ordered list of devices and who owns them. Interned: equal lists are mostly one object.
struct DeviceList {
  struct Member {
    WorkerId worker;
    std::vector<DeviceId> devices;  // in list order
  };
  uint64_t id = 0;  // in order of creation; gives tables an order that no address decides
  std::vector<DeviceId> devices;
  std::vector<Member> members;  // in order of first appearance
  std::vector<WorkerId> workers;  // of the members
};
using DeviceListRef = std::shared_ptr<const DeviceList>;

inline bool SameDevices(const DeviceListRef& a, const DeviceListRef& b) {
  return a == b || a->devices == b->devices;
}

// Whether a buffer's memory was deleted or donated, by itself or by one that aliases it.
class DeletedMark {
 public:
  bool deleted() const {
    return deleted_ ||
           std::any_of(shared_.begin(), shared_.end(), [](const auto& mark) { return *mark; });
  }
  void Set(bool deleted) {
    deleted_ = deleted;
    for (const auto& mark : shared_) *mark = deleted;
  }
  // The two are of one memory: either dies with the other.
  void Share(DeletedMark& other) {
    if (other.shared_.empty()) other.shared_.push_back(std::make_shared<bool>(other.deleted_));
    for (const auto& mark : other.shared_) {
      if (!Has(mark)) shared_.push_back(mark);
    }
  }
  // This one, which is not set, survives all others.
  void Unshare() { shared_.clear(); }
  bool SharedWith(const DeletedMark& other) const {
    return &other == this || std::any_of(other.shared_.begin(), other.shared_.end(),
                                         [this](const auto& mark) { return Has(mark); });
  }

 private:
  bool Has(const std::shared_ptr<bool>& mark) const {
    return std::find(shared_.begin(), shared_.end(), mark) != shared_.end();
  }

  bool deleted_ = false;
  std::vector<std::shared_ptr<bool>> shared_;  // empty of memory that was never aliased
};

// One logical buffer: a part on every member of `list`, stored there under `id`. Dropping the last
// reference tells the members to free it.
struct Buffer {
  BufferId id;
  DeviceListRef list;
  model::DType dtype = model::DType::kInvalid;
  std::string memory_kind;
  int64_t bytes = 0;
  // Membership version at creation; parts on workers that joined later are lost.
  int64_t birth = 0;
  // Parts whose workers live, and have said that the bytes for them did not come.
  std::vector<std::pair<WorkerId, absl::Status>> lost_parts;
  // May its value be shown? nullptr = yes.
  core::GateRef gate;
  // The gate's opening also says that the value is computed (outputs of multi-worker launches).
  bool ready_with_gate = false;
  // The members were told to free it already.
  bool freed = false;

  DeletedMark mark;

  bool deleted() const { return mark.deleted(); }
};
using BufferRef = std::shared_ptr<Buffer>;

struct ShardRef {
  BufferRef buffer;
  DeviceId device;
};

// A client's array: all shards of one buffer, or shards picked from several.
struct Array {
  core::ArraySpec spec;
  DeviceListRef list;
  BufferRef whole;              // else:
  std::vector<ShardRef> parts;  // one a shard
  absl::Status error;           // not OK: the array has no value, this is why

  int num_shards() const { return list == nullptr ? 0 : static_cast<int>(list->devices.size()); }
  ShardRef shard(int i) const {
    return whole != nullptr ? ShardRef{whole, list->devices[i]} : parts[i];
  }
  bool deleted() const {
    if (whole != nullptr) return whole->deleted();
    return std::any_of(parts.begin(), parts.end(),
                       [](const ShardRef& part) { return part.buffer->deleted(); });
  }
};
using ArrayRef = std::shared_ptr<Array>;

struct Program {
  ProgramId id;
  core::CompileRequest request;  // without devices
  int num_devices = 0;
  bool compiled = false;
  std::shared_ptr<const core::ProgramInfo> info;
  std::string serialized;
  // It came from disk: workers get its code too, for where the compiled form does not load.
  bool from_disk = false;
  std::string disk_key;  // empty: it is not kept on disk
  // Of the host callbacks that it makes, by Causeway's client package.
  std::optional<callbacks::ProgramGroup> callbacks;
  // Plugin programs that the controller runs by itself.
  std::shared_ptr<const wire::ReshardProgram> reshard;
  int attempts = 0;
  uint64_t last_use = 0;  // grows with every Compile that asks for one
  std::vector<absl::AnyInvocable<void(absl::Status)>> waiters;  // under the lock

  int64_t bytes() const {
    return static_cast<int64_t>(request.program.size() + serialized.size());
  }
};
using ProgramRef = std::shared_ptr<Program>;

// What a program takes on each of its devices.
struct Parameter {
  model::DType dtype = model::DType::kInvalid;
  model::Shape tile;
  // The latest argument that was found to fit: another one like it needs no second look.
  model::Shape fits_shape;
  model::ShardingRef fits_sharding;
};

struct Binding {
  BindingId id;
  ProgramRef program;
  DeviceListRef list;
  std::optional<std::vector<Parameter>> parameters;  // absent: unknown
  std::vector<core::ArraySpec> outputs;
  std::vector<model::Shape> output_shard_shapes;
  std::vector<int64_t> output_bytes;
  // Host programs only.
  SessionId session;  // whose it is
  std::vector<wire::HostOutput> host_outputs;
  bool several_workers() const { return list->members.size() > 1; }
};
using BindingRef = std::shared_ptr<Binding>;

// A program of kind kFetch, and how often it ran.
struct FetchProgram {
  std::string path;  // without the number
  int64_t executions = 0;
};

struct Executable {
  std::shared_ptr<const core::ExecutableView> view;
  BindingRef binding;                   // else:
  std::shared_ptr<FetchProgram> fetch;
};

// The status of one execution, for clients that ask for it.
struct Execution {
  int replies_due = 0;
  absl::Status status;
  core::GateRef gate;
  bool asked = false;
  absl::AnyInvocable<void(absl::StatusOr<core::DeviceTimes>) &&> done;
};

struct Session {
  SessionId id;
  std::string peer;
  absl::Time opened;
  uint64_t next_handle = uint64_t{1} << 48;
  absl::flat_hash_map<ArrayHandle, ArrayRef> arrays;
  absl::flat_hash_map<ExecutableHandle, Executable> executables;
  std::map<StatusHandle, std::shared_ptr<Execution>> executions;
  // Work since the last mark, by worker; marks not yet reached; who waits for them (run_ahead.cc).
  std::vector<int> unmarked;
  int marks_due = 0;
  absl::AnyInvocable<void() &&> resume;
  // Whether the client has waited for a value since its latest launch, and for how many launches in
  // a row it has (execute.cc).
  bool awaited = false;
  int awaited_in_a_row = 0;
};

// A question to one or more workers.
struct PendingRequest {
  int replies_due = 0;
  absl::Status status;  // the first error
  // The workers that were asked whether one buffer alone is ready.
  std::vector<std::pair<WorkerId, std::weak_ptr<Buffer>>> asked;
  absl::flat_hash_map<DeviceId, absl::Cord> data;
  std::optional<wire::CompileResult> compile;
  std::string compile_bytes;
  std::string text;
  std::map<std::string, double> numbers;
  absl::AnyInvocable<void(PendingRequest&)> done;  // under the lock
};

// What the controller counts; all monotonic.
struct Counters {
  int64_t launches = 0;            // of any kind
  int64_t gang_launches = 0;       // on several workers
  int64_t compiles = 0;
  int64_t compile_hits = 0;        // answered from the cache
  int64_t programs_dropped = 0;    // from the cache, to make room
  int64_t program_loads = 0;
  int64_t ready_questions = 0;     // to workers
  int64_t fetches = 0;
  int64_t epoch_changes = 0;
  int64_t workers_lost = 0;
  int64_t transfers = 0;           // worker to worker
  int64_t transfers_failed = 0;    // of those, given up
  int64_t upload_bytes = 0;
  int64_t download_bytes = 0;
  int64_t buffers_freed = 0;
};

// One place in the cluster and the process that fills it.
struct WorkerState {
  WorkerId id;
  bool alive = false;  // attached: commands may be queued
  Incarnation incarnation;
  std::shared_ptr<core::WorkerLink> link;
  core::WorkerHello hello;
  int64_t joined_version = 0;  // buffers born earlier have no part here
  std::string lost_why = "it has not joined yet";
  // What became of earlier processes here, oldest first: the membership's version, and the error.
  struct Loss {
    int64_t version = 0;
    absl::Status error;
  };
  std::deque<Loss> losses;
  absl::Time changed;
  bool nodes_are_old = false;  // a peer has joined, and this one has not been told
  absl::flat_hash_set<ProgramId> programs;
  absl::flat_hash_set<BindingId> bindings;
  std::map<RequestId, int> requests;  // replies due from it
  core::Pulse pulse;
  absl::Time last_heard;
  std::map<std::string, int64_t> stats;
  std::map<std::string, int64_t> transfers;  // by class and path
  std::string transfer_fallback;             // why a path was left last
};

// A worker without a place: it takes that of the next one that is lost.
struct Spare {
  core::WorkerHello hello;
  std::shared_ptr<core::WorkerLink> link;
  core::WorkerAdmission admission;
  core::Pulse pulse;
};

}  // namespace causeway::controller
