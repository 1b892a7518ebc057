// Waiting for jaxlib's tokens and host copies, and reading the facts of a compilation.
#include "causeway/device/jax_values.h"

#include <cstdint>
#include <utility>

#include "causeway/base/status_macros.h"
#include "causeway/device/gloo_calls.h"
#include "causeway/device/held_threads.h"

namespace causeway::device {
namespace {

PyObject* Item(PyObject* dict, const char* key) { return PyDict_GetItemString(dict, key); }

template <class F>
void ForEach(PyObject* sequence, F f) {
  if (sequence == nullptr || sequence == Py_None) return;
  const Py_ssize_t n = PySequence_Size(sequence);
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* item = PySequence_GetItem(sequence, i);
    if (item == nullptr) {
      PyErr_Clear();
      continue;
    }
    f(item);
    Py_DECREF(item);
  }
}

std::vector<int64_t> Ints(PyObject* sequence) {
  std::vector<int64_t> out;
  ForEach(sequence, [&](PyObject* x) { out.push_back(PyToInt(x)); });
  return out;
}

// Pairs of an element type and dimensions.
std::vector<ArrayType> ArrayTypes(PyObject* sequence) {
  std::vector<ArrayType> out;
  ForEach(sequence, [&](PyObject* pair) {
    PyRef dtype = PyRef::Steal(PySequence_GetItem(pair, 0));
    PyRef dims = PyRef::Steal(PySequence_GetItem(pair, 1));
    out.push_back({static_cast<int32_t>(PyToInt(dtype.get())), Ints(dims.get())});
  });
  return out;
}

std::optional<std::vector<std::string>> MaybeStrings(PyObject* sequence) {
  if (sequence == nullptr || sequence == Py_None) return std::nullopt;
  std::vector<std::string> out;
  ForEach(sequence, [&](PyObject* x) { out.push_back(PyToString(x)); });
  return out;
}

absl::Status MaybeError(PyObject* text) {
  if (text == nullptr || text == Py_None) return absl::OkStatus();
  return StatusFromXlaText("", PyToString(text));
}

std::vector<std::vector<int64_t>> Layouts(PyObject* sequence) {
  std::vector<std::vector<int64_t>> out;
  ForEach(sequence, [&](PyObject* x) { out.push_back(Ints(x)); });
  return out;
}

}  // namespace

JaxCompletion::~JaxCompletion() {
  if (release_) (void)release_();
}

absl::Status JaxCompletion::Await() {
  absl::Status status;
  if (token_) {
    const XlaWait wait;
    GilScope gil;
    status = Checked(PyObject_CallMethod(backend_, "await_token", "O", token_.get())).status();
  }
  if (release_) RETURN_IF_ERROR(std::exchange(release_, nullptr)());
  RETURN_IF_ERROR(status);
  if (spoiled_ < 0 || spoiled_ == SpoiledMessages()) return absl::OkStatus();
  return PeerFailure(absl::UnavailableError(
      "the connection to a peer ended in the middle of a message of a collective"));
}

absl::StatusOr<HostShard> JaxHostCopy::Await() {
  const XlaWait wait;
  GilScope gil;
  ASSIGN_OR_RETURN(PyRef found,
                   Checked(PyObject_CallMethod(backend_, "host_bytes", "O", piece_.get())));
  PyRef address = PyRef::Steal(PySequence_GetItem(found.get(), 0));
  PyRef size = PyRef::Steal(PySequence_GetItem(found.get(), 1));
  auto owner = std::make_shared<PyRef>(PyRef::Steal(PySequence_GetItem(found.get(), 2)));
  PyRef dims = PyRef::Steal(PySequence_GetItem(found.get(), 3));
  PyRef width = PyRef::Steal(PySequence_GetItem(found.get(), 4));
  PyRef dtype = PyRef::Steal(PySequence_GetItem(found.get(), 5));
  HostShard shard;
  shard.bytes = HostBlock::Borrow(
      reinterpret_cast<const char*>(static_cast<uintptr_t>(PyToInt(address.get()))),
      static_cast<size_t>(PyToInt(size.get())), std::move(owner));
  shard.dims = Ints(dims.get());
  shard.element_bytes = PyToInt(width.get());
  shard.dtype = static_cast<int32_t>(PyToInt(dtype.get()));
  return shard;
}

Compiled ReadCompiled(PyObject* dict) {
  Compiled c;
  c.serialized = PyToString(Item(dict, "serialized"));
  c.name = PyToString(Item(dict, "name"));
  c.fingerprint = PyToString(Item(dict, "fingerprint"));
  c.outputs = ArrayTypes(Item(dict, "outputs"));
  if (PyObject* parameters = Item(dict, "parameters");
      parameters != nullptr && parameters != Py_None) {
    c.parameters = ArrayTypes(parameters);
  }
  c.parameter_shardings = MaybeStrings(Item(dict, "parameter_shardings"));
  c.output_shardings = MaybeStrings(Item(dict, "output_shardings"));
  c.parameter_layouts_status = MaybeError(Item(dict, "parameter_layouts_error"));
  c.parameter_layouts = Layouts(Item(dict, "parameter_layouts"));
  c.output_layouts_status = MaybeError(Item(dict, "output_layouts_error"));
  c.output_layouts = Layouts(Item(dict, "output_layouts"));
  c.output_memory_kinds =
      MaybeStrings(Item(dict, "output_memory_kinds")).value_or(std::vector<std::string>());
  for (const int64_t i : Ints(Item(dict, "donated_inputs"))) {
    c.donated_inputs.push_back(static_cast<int32_t>(i));
  }
  c.memory_stats_status = MaybeError(Item(dict, "memory_stats_error"));
  if (PyObject* stats = Item(dict, "memory_stats"); stats != nullptr && PyDict_Check(stats)) {
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (PyDict_Next(stats, &at, &key, &value)) {
      c.memory_stats[PyToString(key)] = PyToInt(value);
    }
  }
  c.generated_code_bytes = PyToInt(Item(dict, "generated_code_bytes"));
  c.compile_seconds = PyToDouble(Item(dict, "compile_seconds"));
  return c;
}

}  // namespace causeway::device
