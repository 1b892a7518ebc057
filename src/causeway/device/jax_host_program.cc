// Shards to Python and back, as buffers without a copy on this side.
#include "causeway/device/jax_host_program.h"

#include <string>
#include <utility>

#include "causeway/base/status_macros.h"

namespace causeway::device {
namespace {

PyObject* PyDims(const std::vector<int64_t>& dims) {
  PyObject* tuple = PyTuple_New(static_cast<Py_ssize_t>(dims.size()));
  for (size_t i = 0; i < dims.size(); ++i) {
    PyTuple_SetItem(tuple, static_cast<Py_ssize_t>(i), PyLong_FromLongLong(dims[i]));
  }
  return tuple;
}

// [(device, element type, bytes, dims)]
PyRef PyValue(const HostValue& value) {
  PyRef list = PyRef::Steal(PyList_New(0));
  for (const HostPart& part : value) {
    PyRef block = PyRef::Steal(PyBufferOver(part.shard.bytes));
    PyRef dims = PyRef::Steal(PyDims(part.shard.dims));
    PyRef item =
        PyRef::Steal(Py_BuildValue("(iiOO)", static_cast<int>(part.device),
                                   static_cast<int>(part.shard.dtype), block.get(), dims.get()));
    PyList_Append(list.get(), item.get());
  }
  return list;
}

// From (device, address, size, owner, dims).
HostPart PartFrom(PyObject* item) {
  HostPart part;
  part.device = static_cast<int32_t>(PyToInt(PyTuple_GetItem(item, 0)));
  PyObject* owned = PyTuple_GetItem(item, 3);
  Py_INCREF(owned);
  auto owner = std::make_shared<PyRef>(PyRef::Steal(owned));
  part.shard.bytes = HostBlock::Borrow(
      reinterpret_cast<const char*>(static_cast<uintptr_t>(PyToInt(PyTuple_GetItem(item, 1)))),
      static_cast<size_t>(PyToInt(PyTuple_GetItem(item, 2))), std::move(owner));
  PyObject* dims = PyTuple_GetItem(item, 4);
  for (Py_ssize_t d = 0; d < PyTuple_Size(dims); ++d) {
    part.shard.dims.push_back(PyToInt(PyTuple_GetItem(dims, d)));
  }
  return part;
}

class JaxHostProgram final : public HostProgram {
 public:
  explicit JaxHostProgram(PyRef program) : program_(program.release()) {}
  // Here and now, not with other garbage on another thread: users' destructors run in it.
  ~JaxHostProgram() override {
    GilScope gil;
    PyRef closed = PyRef::Steal(PyObject_CallMethod(program_, "close", nullptr));
    if (!closed) PyErr_Clear();
    Py_DECREF(program_);
  }

  absl::StatusOr<std::vector<HostValue>> Run(const std::vector<HostValue>& args) override {
    GilScope gil;
    PyRef list = PyRef::Steal(PyList_New(0));
    for (const HostValue& arg : args) {
      PyRef value = PyValue(arg);
      PyList_Append(list.get(), value.get());
    }
    ASSIGN_OR_RETURN(PyRef found,
                     Checked(PyObject_CallMethod(program_, "run", "O", list.get())));
    std::vector<HostValue> results;
    for (Py_ssize_t i = 0; i < PyList_Size(found.get()); ++i) {
      PyObject* parts = PyList_GetItem(found.get(), i);
      HostValue& value = results.emplace_back();
      for (Py_ssize_t k = 0; k < PyList_Size(parts); ++k) {
        value.push_back(PartFrom(PyList_GetItem(parts, k)));
      }
    }
    return results;
  }

 private:
  PyObject* const program_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<HostProgram>> LoadJaxHostProgram(PyObject* backend,
                                                                const HostProgramSpec& spec) {
  GilScope gil;
  PyRef code = PyRef::Steal(PyBytesFrom(spec.source->code));
  ASSIGN_OR_RETURN(
      PyRef program,
      Checked(PyObject_CallMethod(backend, "load_host_program", "isOiii", spec.source->kind,
                                  spec.source->name.c_str(), code.get(), spec.worker,
                                  spec.num_workers, spec.devices_per_host)));
  return std::shared_ptr<HostProgram>(std::make_shared<JaxHostProgram>(std::move(program)));
}

}  // namespace causeway::device
