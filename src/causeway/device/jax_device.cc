// Converts the Device's calls into calls of the Python backend.
#include "causeway/device/jax_device.h"

#include <atomic>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "causeway/base/log.h"
#include "causeway/base/status_macros.h"
#include "causeway/device/gloo_calls.h"
#include "causeway/device/held_threads.h"
#include "causeway/device/gloo_doors.h"
#include "causeway/device/jax_host_program.h"
#include "causeway/device/jax_values.h"
#include "causeway/device/socket_abort.h"

namespace causeway::device {
namespace {

// Of the calls of AbortCollectives in an epoch, which follow each other in some milliseconds.
// Knocking leaves connections in gloo until its client goes: not merely because the machine is slow.
constexpr int kCallsBeforeKnocking = 20;
constexpr int kCallsForReading = 40;

// What the library of callbacks does for launches, see callbacks/handler.cc.
struct CallbackCalls {
  using Tell = void (*)(void* status, int code, const char* text, size_t size);
  void (*hold)(int64_t run, int shared) = nullptr;
  void (*release)(int64_t run, Tell tell, void* status) = nullptr;
  void (*overdue)(Tell tell, void* status) = nullptr;

  absl::Status Release(int64_t run) const {
    absl::Status status;
    release(run, &Write, &status);
    return status;
  }
  absl::Status Overdue() const {
    absl::Status status;
    overdue(&Write, &status);
    return status;
  }

 private:
  static void Write(void* status, int code, const char* text, size_t size) {
    *static_cast<absl::Status*>(status) =
        absl::Status(static_cast<absl::StatusCode>(code), absl::string_view(text, size));
  }
};

template <class Ints>
PyObject* PyTupleOf(const Ints& values) {
  PyObject* tuple = PyTuple_New(static_cast<Py_ssize_t>(values.size()));
  Py_ssize_t i = 0;
  for (const auto value : values) PyTuple_SetItem(tuple, i++, PyLong_FromLongLong(value));
  return tuple;
}

PyObject* PyTupleOf(const std::vector<std::string>& values) {
  PyObject* tuple = PyTuple_New(static_cast<Py_ssize_t>(values.size()));
  for (size_t i = 0; i < values.size(); ++i) {
    PyTuple_SetItem(tuple, static_cast<Py_ssize_t>(i), PyFrom(values[i]));
  }
  return tuple;
}

PyObject* Borrowed(PyObject* object) {
  Py_INCREF(object);
  return object;
}

int IndexOf(const std::vector<int32_t>& devices, int32_t device) {
  for (size_t i = 0; i < devices.size(); ++i) {
    if (devices[i] == device) return static_cast<int>(i);
  }
  return -1;
}

class JaxDevice final : public Device {
 public:
  JaxDevice(PyRef backend, DeviceInfo info, std::function<bool(int, int)> is_ours)
      : backend_(std::move(backend)), info_(std::move(info)), is_ours_(std::move(is_ours)) {
    launch_name_ = PyFrom("launch");
  }

  const DeviceInfo& info() const override { return info_; }

  absl::Status OpenEpoch(const EpochSpec& spec) override {
    GilScope gil;
    spec_ = spec;
    if (info_.platform == "cpu" && !InstallGlooCalls()) {
      LOG(WARNING) << "this jaxlib calls the system in another way: a worker that outlives a peer "
                      "may have to be restarted";
    }
    const std::vector<ListeningSocket> older = ListeningSockets();
    ASSIGN_OR_RETURN(const PyRef callbacks,
                     Checked(PyObject_CallMethod(backend_.get(), "open_epoch", "isisii", spec.node,
                                                 spec.coordinator.c_str(), spec.num_nodes,
                                                 spec.callbacks.c_str(), spec.worker,
                                                 spec.num_workers)));
    if (callbacks.get() != Py_None && !has_callbacks_) {
      const auto address = [&callbacks](Py_ssize_t i) {
        return PyToInt(PyTuple_GetItem(callbacks.get(), i));
      };
      calls_.hold = reinterpret_cast<decltype(calls_.hold)>(address(0));
      calls_.release = reinterpret_cast<decltype(calls_.release)>(address(1));
      calls_.overdue = reinterpret_cast<decltype(calls_.overdue)>(address(2));
      has_callbacks_ = true;
    }
    std::vector<ListeningSocket> newer = ListeningSockets();
    std::erase_if(newer, [&](const ListeningSocket& socket) {
      return is_ours_(socket.port, 0) || absl::c_any_of(older, [&](const ListeningSocket& o) {
               return o.port == socket.port;
             });
    });
    absl::MutexLock lock(&doors_mu_);
    doors_ = std::make_shared<GlooDoors>(std::move(newer));
    aborts_ = 0;
    return absl::OkStatus();
  }

  int AbortCollectives() override {
    std::shared_ptr<GlooDoors> doors;
    int calls = 0;
    {
      absl::MutexLock lock(&doors_mu_);
      doors = doors_;
      calls = ++aborts_;
    }
    const auto keep = [&](int local_port, int peer_port) {
      return is_ours_(local_port, peer_port) || (doors != nullptr && doors->Made(peer_port));
    };
    const int cut = ShutDownForeignConnections(
        keep, calls <= kCallsForReading ? Cut::kReading : Cut::kBoth);
    // What has outlived so many cuts waits for a connection, or for the head's answer.
    return cut + (calls > kCallsBeforeKnocking && doors != nullptr ? doors->Knock() : 0);
  }

  absl::Status OverdueFailure() override {
    return has_callbacks_ ? calls_.Overdue() : absl::OkStatus();
  }

  absl::StatusOr<Compiled> Compile(const CompileRequest& request) override {
    RETURN_IF_ERROR(CheckKind(request.kind));
    GilScope gil;
    PyRef code = PyRef::Steal(PyBytesFrom(request.code));
    PyRef options = PyRef::Steal(PyBytesFrom(request.options));
    ASSIGN_OR_RETURN(PyRef found,
                     Checked(PyObject_CallMethod(backend_.get(), "compile", "OOi", code.get(),
                                                 options.get(), request.num_devices)));
    return ReadCompiled(found.get());
  }

  absl::StatusOr<std::shared_ptr<Program>> Load(const LoadRequest& request) override {
    const ProgramSource& source = *request.source;
    RETURN_IF_ERROR(CheckKind(source.kind));
    std::vector<int32_t> local;
    for (const int32_t device : request.devices) {
      if (device / spec_.devices_per_host == spec_.worker) local.push_back(device);
    }
    if (local.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("program ", source.name, " has no device on worker ", spec_.worker));
    }
    GilScope gil;
    PyRef places = PyRef::Steal(PyTuple_New(static_cast<Py_ssize_t>(request.devices.size())));
    for (size_t i = 0; i < request.devices.size(); ++i) {
      const int worker = request.devices[i] / spec_.devices_per_host;
      const int node = worker == spec_.worker ? spec_.node
                       : worker < static_cast<int>(request.nodes.size()) ? request.nodes[worker]
                                                                         : 0;
      if (node <= 0) {
        return absl::DataLossError(absl::StrCat(
            "program ", source.name, " needs worker ", worker, ", which is not in epoch ",
            spec_.epoch, "; run it again once that worker is back"));
      }
      PyTuple_SetItem(places.get(), static_cast<Py_ssize_t>(i),
                      Py_BuildValue("(ii)", node, request.devices[i] % spec_.devices_per_host));
    }
    PyRef serialized = PyRef::Steal(PyBytesFrom(source.serialized));
    PyRef code = PyRef::Steal(PyBytesFrom(source.code));
    PyRef options = PyRef::Steal(PyBytesFrom(source.options));
    PyRef dtypes = PyRef::Steal(PyTupleOf(request.output_dtypes));
    PyRef kinds = PyRef::Steal(PyTupleOf(request.output_memory_kinds));
    ASSIGN_OR_RETURN(PyRef loaded, Checked(PyObject_CallMethod(
                                       backend_.get(), "load", "OOOOOO", serialized.get(),
                                       code.get(), options.get(), places.get(), dtypes.get(),
                                       kinds.get())));
    auto program = std::make_shared<JaxProgram>(std::move(loaded), std::move(local));
    program->on_several_devices = request.devices.size() > 1;
    program->host_callbacks = request.host_callbacks;
    return std::shared_ptr<Program>(std::move(program));
  }

  absl::StatusOr<Launched> Launch(Program& program, absl::Span<const ArrayRef> args,
                                  absl::Span<const int32_t> protect, uint64_t place) override {
    auto& jax = static_cast<JaxProgram&>(program);
    for (const int32_t i : protect) {
      if (i < 0 || i >= static_cast<int32_t>(args.size())) {
        return absl::InvalidArgumentError(
            absl::StrCat("argument ", i, " cannot be protected: there are ", args.size()));
      }
    }
    GilScope gil;
    PyRef list = PyRef::Steal(PyList_New(static_cast<Py_ssize_t>(args.size())));
    for (size_t i = 0; i < args.size(); ++i) {
      ASSIGN_OR_RETURN(PyRef arg, ArgumentFor(jax, args[i]));
      PyList_SetItem(list.get(), static_cast<Py_ssize_t>(i), arg.release());
    }
    PyRef protected_args = PyRef::Steal(PyTupleOf(protect));
    const int64_t spoiled = jax.on_several_devices ? SpoiledMessages() : -1;
    // XLA names the run so when it calls the handler of callbacks.
    const int32_t run = jax.host_callbacks && has_callbacks_ ? NextRun(place) : 0;
    const bool held = run != 0 && jax.on_several_devices;
    PyRef run_or_none = PyRef::Steal(run == 0 ? Borrowed(Py_None) : PyLong_FromLong(run));
    if (held) calls_.hold(run, place != 0 ? 1 : 0);
    absl::StatusOr<PyRef> issued = Checked(PyObject_CallMethodObjArgs(
        backend_.get(), launch_name_, jax.loaded(), list.get(), protected_args.get(),
        run_or_none.get(), nullptr));
    if (!issued.ok()) {
      if (held) (void)calls_.Release(run);
      return issued.status();
    }
    const PyRef found = *std::move(issued);
    JaxCompletion::Release release;
    if (held) release = [calls = calls_, run] { return calls.Release(run); };
    PyObject* outputs = PyTuple_GetItem(found.get(), 0);
    PyObject* token = PyTuple_GetItem(found.get(), 1);
    const Py_ssize_t n = PyList_Size(outputs);
    if (jax.output_bytes.empty() && n > 0) LearnOutputBytes(jax, outputs);
    Launched launched;
    launched.outputs.reserve(static_cast<size_t>(n));
    for (Py_ssize_t i = 0; i < n; ++i) {
      launched.outputs.push_back(std::make_shared<JaxArray>(
          PyRef::Steal(Borrowed(PyList_GetItem(outputs, i))), jax.local(), jax.output_bytes[i]));
    }
    launched.held = held;
    if (token != Py_None) {
      launched.completion = std::make_unique<JaxCompletion>(
          backend_.get(), PyRef::Steal(Borrowed(token)), spoiled, std::move(release));
    } else if (held || (spoiled >= 0 && spoiled != SpoiledMessages())) {
      launched.completion = std::make_unique<JaxCompletion>(backend_.get(), PyRef(), spoiled,
                                                            std::move(release));
    }
    return launched;
  }

  absl::StatusOr<ArrayRef> Build(const BuildRequest& request) override {
    GilScope gil;
    auto devices = std::make_shared<std::vector<int32_t>>();
    PyRef shards = PyRef::Steal(PyList_New(0));
    std::vector<int32_t> ordinals;
    int64_t bytes = 0;
    for (const ShardSource& shard : request.shards) {
      devices->push_back(shard.device);
      ordinals.push_back(shard.device % spec_.devices_per_host);
      ASSIGN_OR_RETURN(PyRef item, ShardTuple(shard));
      PyList_Append(shards.get(), item.get());
      bytes += shard.kind == ShardSource::Kind::kHost
                   ? static_cast<int64_t>(shard.bytes->size())
                   : shard.source->bytes() /
                         static_cast<int64_t>(std::max<size_t>(1, shard.source->devices().size()));
    }
    PyRef where = PyRef::Steal(PyTupleOf(ordinals));
    ASSIGN_OR_RETURN(PyRef array, Checked(PyObject_CallMethod(
                                      backend_.get(), "build", "isOO", request.dtype,
                                      request.memory_kind.c_str(), where.get(), shards.get())));
    return ArrayRef(std::make_shared<JaxArray>(std::move(array), std::move(devices), bytes));
  }

  absl::StatusOr<std::unique_ptr<HostCopy>> StartHostCopy(const ArrayRef& array,
                                                          int32_t device) override {
    const auto& jax = static_cast<const JaxArray&>(*array);
    const int index = IndexOf(jax.devices(), device);
    if (index < 0) return NoShard(device);
    GilScope gil;
    ASSIGN_OR_RETURN(PyRef started, Checked(PyObject_CallMethod(backend_.get(), "start_host_copy",
                                                                "Oi", jax.array(), index)));
    return std::unique_ptr<HostCopy>(std::make_unique<JaxHostCopy>(
        backend_.get(), PyRef::Steal(Borrowed(PyTuple_GetItem(started.get(), 0))),
        PyObject_IsTrue(PyTuple_GetItem(started.get(), 1)) == 1));
  }

  absl::Status AwaitReady(absl::Span<const ArrayRef> arrays) override {
    const XlaWait wait;
    GilScope gil;
    PyRef list = PyRef::Steal(PyList_New(0));
    for (const ArrayRef& array : arrays) {
      PyList_Append(list.get(), static_cast<const JaxArray&>(*array).array());
    }
    return Checked(PyObject_CallMethod(backend_.get(), "block", "O", list.get())).status();
  }

  absl::StatusOr<ArrayRef> Adopt(const ArrayRef& array) override {
    auto& jax = static_cast<JaxArray&>(*array);
    std::vector<int32_t> ordinals;
    for (const int32_t d : jax.devices()) ordinals.push_back(d % spec_.devices_per_host);
    GilScope gil;
    PyRef where = PyRef::Steal(PyTupleOf(ordinals));
    PyObject* views = jax.views() != nullptr ? jax.views() : Py_None;
    ASSIGN_OR_RETURN(PyRef found, Checked(PyObject_CallMethod(backend_.get(), "adopt", "OOO",
                                                              jax.array(), views, where.get())));
    auto adopted = std::make_shared<JaxArray>(
        PyRef::Steal(Borrowed(PyTuple_GetItem(found.get(), 0))), jax.shared_devices(),
        jax.bytes());
    adopted->set_views(PyRef::Steal(Borrowed(PyTuple_GetItem(found.get(), 1))));
    return ArrayRef(std::move(adopted));
  }

  absl::StatusOr<Introspection> Introspect(const ProgramSource& source,
                                           const std::string& what) override {
    RETURN_IF_ERROR(CheckKind(source.kind));
    GilScope gil;
    PyRef serialized = PyRef::Steal(PyBytesFrom(source.serialized));
    PyRef code = PyRef::Steal(PyBytesFrom(source.code));
    PyRef options = PyRef::Steal(PyBytesFrom(source.options));
    ASSIGN_OR_RETURN(PyRef found,
                     Checked(PyObject_CallMethod(backend_.get(), "introspect", "OOOis",
                                                 serialized.get(), code.get(), options.get(),
                                                 source.num_devices, what.c_str())));
    Introspection result;
    result.text = PyToString(PyTuple_GetItem(found.get(), 0));
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (PyDict_Next(PyTuple_GetItem(found.get(), 1), &at, &key, &value)) {
      result.numbers[PyToString(key)] = PyToDouble(value);
    }
    return result;
  }

  absl::StatusOr<std::shared_ptr<HostProgram>> LoadHostProgram(
      const HostProgramSpec& spec) override {
    return LoadJaxHostProgram(backend_.get(), spec);
  }

  void Idle() override {
    if (HasPyGarbage()) GilScope release;
  }

  void ForgetOldEpochs() override {
    GilScope gil;
    const auto done = Checked(PyObject_CallMethod(backend_.get(), "forget_old_epochs", nullptr));
    if (!done.ok()) LOG(WARNING) << "clients of older epochs stay: " << done.status().message();
  }

 private:
  static absl::Status CheckKind(int kind) {
    if (kind == 0) return absl::OkStatus();
    return absl::UnimplementedError(
        absl::StrCat("program kind ", kind, " is not compiled but run in host memory"));
  }

  static absl::Status NoShard(int32_t device) {
    return absl::FailedPreconditionError(
        absl::StrCat("the buffer has no shard on device ", device, " of this worker"));
  }

  // The array in the program's device order.
  absl::StatusOr<PyRef> ArgumentFor(const JaxProgram& program, const ArrayRef& arg) {
    const auto& jax = static_cast<const JaxArray&>(*arg);
    const std::vector<int32_t>& want = *program.local();
    if (jax.shared_devices() == program.local() || jax.devices() == want) {
      return PyRef::Steal(Borrowed(jax.array()));
    }
    std::vector<int32_t> order, ordinals;
    for (const int32_t device : want) {
      const int index = IndexOf(jax.devices(), device);
      if (index < 0) return NoShard(device);
      order.push_back(index);
      ordinals.push_back(device % spec_.devices_per_host);
    }
    PyRef py_order = PyRef::Steal(PyTupleOf(order));
    PyRef py_ordinals = PyRef::Steal(PyTupleOf(ordinals));
    return Checked(PyObject_CallMethod(backend_.get(), "reorder", "OOO", jax.array(),
                                       py_order.get(), py_ordinals.get()));
  }

  absl::StatusOr<PyRef> ShardTuple(const ShardSource& shard) {
    if (shard.kind == ShardSource::Kind::kHost) {
      PyRef block = PyRef::Steal(PyBufferOver(shard.bytes));
      PyRef dims = PyRef::Steal(PyTupleOf(shard.dims));
      PyRef strides = PyRef::Steal(PyTupleOf(shard.byte_strides));
      return Checked(
          Py_BuildValue("(sOOO)", "host", block.get(), dims.get(), strides.get()));
    }
    const auto& jax = static_cast<const JaxArray&>(*shard.source);
    const int index = IndexOf(jax.devices(), shard.source_device);
    if (index < 0) return NoShard(shard.source_device);
    return Checked(Py_BuildValue("(sOi)",
                                 shard.kind == ShardSource::Kind::kAlias ? "alias" : "copy",
                                 jax.array(), index));
  }

  // Never 0. Positive: the same number on all workers. Unique among launches in flight here.
  int32_t NextRun(uint64_t place) {
    constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
    if (place != 0) return static_cast<int32_t>((place - 1) % kMost) + 1;
    next_run_ = next_run_ == -kMost ? -1 : next_run_ - 1;
    return next_run_;
  }

  // Best effort: sizes serve statistics only.
  void LearnOutputBytes(JaxProgram& program, PyObject* outputs) {
    const Py_ssize_t n = PyList_Size(outputs);
    program.output_bytes.assign(static_cast<size_t>(n), 0);
    PyRef sizes = PyRef::Steal(PyObject_CallMethod(backend_.get(), "shard_bytes", "O", outputs));
    if (!sizes) {
      PyErr_Clear();
      return;
    }
    const int64_t shards = static_cast<int64_t>(program.local()->size());
    for (Py_ssize_t i = 0; i < n; ++i) {
      program.output_bytes[i] = PyToInt(PyList_GetItem(sizes.get(), i)) * shards;
    }
  }

  const PyRef backend_;
  const DeviceInfo info_;
  const std::function<bool(int, int)> is_ours_;
  PyObject* launch_name_ = nullptr;
  // Of the library that Python has loaded; written once. Called for every heartbeat, which must not
  // wait for the user's Python.
  CallbackCalls calls_;
  std::atomic<bool> has_callbacks_{false};
  int32_t next_run_ = 0;
  absl::Mutex doors_mu_;
  std::shared_ptr<GlooDoors> doors_ ABSL_GUARDED_BY(doors_mu_);  // of the current epoch
  int aborts_ ABSL_GUARDED_BY(doors_mu_) = 0;                    // calls in the current epoch
  EpochSpec spec_;  // OpenEpoch's and of those that come one at a time
};

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> CreateJaxDevice(PyRef backend,
                                                        std::function<bool(int, int)> is_ours) {
  ASSIGN_OR_RETURN(PyRef found, Checked(PyObject_CallMethod(backend.get(), "info", nullptr)));
  DeviceInfo info;
  info.platform = PyToString(PyTuple_GetItem(found.get(), 0));
  info.device_kind = PyToString(PyTuple_GetItem(found.get(), 1));
  PyObject* kinds = PyTuple_GetItem(found.get(), 2);
  for (Py_ssize_t i = 0; i < PyTuple_Size(kinds); ++i) {
    info.memory_kinds.push_back(PyToString(PyTuple_GetItem(kinds, i)));
  }
  info.runtime_version = PyToString(PyTuple_GetItem(found.get(), 3));
  info.num_devices = static_cast<int>(PyToInt(PyTuple_GetItem(found.get(), 4)));
  info.compile_target = PyToString(PyTuple_GetItem(found.get(), 5));
  return std::unique_ptr<Device>(
      std::make_unique<JaxDevice>(std::move(backend), std::move(info), std::move(is_ours)));
}

}  // namespace causeway::device
