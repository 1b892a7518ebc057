// References, GIL, errors and buffers of the embedded interpreter.
#include "causeway/device/python.h"

#include <atomic>
#include <cstring>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "causeway/device/types.h"

namespace causeway::device {
namespace {

struct Garbage {
  absl::Mutex mu;
  std::vector<PyObject*> objects ABSL_GUARDED_BY(mu);
  std::atomic<bool> any{false};
};

// Never destroyed: references may die during process exit.
Garbage& TheGarbage() {
  static Garbage* garbage = new Garbage;
  return *garbage;
}

// Keeps this thread's Python state alive between scopes, which makes them cheap.
class ThreadState {
 public:
  ThreadState() : state_(PyGILState_Ensure()), saved_(PyEval_SaveThread()) {}
  ~ThreadState() {
    PyEval_RestoreThread(saved_);
    PyGILState_Release(state_);
  }

 private:
  PyGILState_STATE state_;
  PyThreadState* saved_;
};

struct BlockObject {
  PyObject_HEAD
  HostBytes* block;
};

int BlockGetBuffer(PyObject* self, Py_buffer* view, int flags) {
  const HostBytes& block = *reinterpret_cast<BlockObject*>(self)->block;
  return PyBuffer_FillInfo(view, self, const_cast<char*>(block->data()),
                           static_cast<Py_ssize_t>(block->size()), /*readonly=*/1, flags);
}

void BlockDealloc(PyObject* self) {
  delete reinterpret_cast<BlockObject*>(self)->block;
  PyTypeObject* type = Py_TYPE(self);
  PyObject_Free(self);
  Py_DECREF(reinterpret_cast<PyObject*>(type));
}

PyObject* BlockType() {
  static PyType_Slot slots[] = {
      {Py_bf_getbuffer, reinterpret_cast<void*>(&BlockGetBuffer)},
      {Py_tp_dealloc, reinterpret_cast<void*>(&BlockDealloc)},
      {0, nullptr},
  };
  static PyType_Spec spec = {"causeway._native._worker.HostBlock", sizeof(BlockObject), 0,
                             Py_TPFLAGS_DEFAULT, slots};
  static PyObject* type = PyType_FromSpec(&spec);
  return type;
}

bool LooksLikeLostPeer(const std::string& text) {
  for (const char* part :
       {"Gloo", "gloo", "Connection closed", "Connection reset", "Broken pipe",
        "Socket closed", "NCCL", "connection refused", "Connection refused"}) {
    if (absl::StrContains(text, part)) return true;
  }
  return false;
}

struct CodeName {
  const char* name;
  absl::StatusCode code;
};
constexpr CodeName kCodes[] = {
    {"CANCELLED", absl::StatusCode::kCancelled},
    {"UNKNOWN", absl::StatusCode::kUnknown},
    {"INVALID_ARGUMENT", absl::StatusCode::kInvalidArgument},
    {"DEADLINE_EXCEEDED", absl::StatusCode::kDeadlineExceeded},
    {"NOT_FOUND", absl::StatusCode::kNotFound},
    {"ALREADY_EXISTS", absl::StatusCode::kAlreadyExists},
    {"PERMISSION_DENIED", absl::StatusCode::kPermissionDenied},
    {"RESOURCE_EXHAUSTED", absl::StatusCode::kResourceExhausted},
    {"FAILED_PRECONDITION", absl::StatusCode::kFailedPrecondition},
    {"ABORTED", absl::StatusCode::kAborted},
    {"OUT_OF_RANGE", absl::StatusCode::kOutOfRange},
    {"UNIMPLEMENTED", absl::StatusCode::kUnimplemented},
    {"INTERNAL", absl::StatusCode::kInternal},
    {"UNAVAILABLE", absl::StatusCode::kUnavailable},
    {"DATA_LOSS", absl::StatusCode::kDataLoss},
    {"UNAUTHENTICATED", absl::StatusCode::kUnauthenticated},
};

}  // namespace

PyRef::~PyRef() {
  if (object_ == nullptr) return;
  Garbage& garbage = TheGarbage();
  absl::MutexLock lock(&garbage.mu);
  garbage.objects.push_back(object_);
  garbage.any.store(true, std::memory_order_relaxed);
}

GilScope::GilScope() {
  static thread_local ThreadState thread_state;
  state_ = PyGILState_Ensure();
  Garbage& garbage = TheGarbage();
  if (!garbage.any.load(std::memory_order_relaxed)) return;
  std::vector<PyObject*> dead;
  {
    absl::MutexLock lock(&garbage.mu);
    dead.swap(garbage.objects);
    garbage.any.store(false, std::memory_order_relaxed);
  }
  for (PyObject* object : dead) Py_DECREF(object);
}

GilScope::~GilScope() { PyGILState_Release(state_); }

bool HasPyGarbage() { return TheGarbage().any.load(std::memory_order_relaxed); }

absl::Status StatusFromXlaText(const std::string& type_name, const std::string& text) {
  absl::StatusCode code = absl::StatusCode::kInternal;
  std::string message = text;
  bool named = false;
  for (const CodeName& c : kCodes) {
    if (absl::StartsWith(text, absl::StrCat(c.name, ": "))) {
      code = c.code;
      message = text.substr(std::strlen(c.name) + 2);
      named = true;
      break;
    }
  }
  if (!named) {
    if (type_name == "ValueError" || type_name == "TypeError" ||
        absl::StrContains(text, "has been deleted") ||
        absl::StrContains(text, "deleted or donated")) {
      code = absl::StatusCode::kInvalidArgument;
    } else if (type_name == "MemoryError") {
      code = absl::StatusCode::kResourceExhausted;
    }
    if (message.empty()) message = type_name;
  }
  absl::Status status(code, message);
  if (code != absl::StatusCode::kInvalidArgument &&
      code != absl::StatusCode::kResourceExhausted && LooksLikeLostPeer(message)) {
    return PeerFailure(std::move(status));
  }
  return status;
}

absl::Status TakePyError() {
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  if (type == nullptr) return absl::InternalError("a call failed without a Python exception");
  PyErr_NormalizeException(&type, &value, &trace);
  std::string type_name;
  if (PyObject* name = PyObject_GetAttrString(type, "__name__"); name != nullptr) {
    type_name = PyToString(name);
    Py_DECREF(name);
  }
  std::string text;
  if (PyObject* str = value != nullptr ? PyObject_Str(value) : nullptr; str != nullptr) {
    text = PyToString(str);
    Py_DECREF(str);
  }
  PyErr_Clear();
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(trace);
  return StatusFromXlaText(type_name, text);
}

absl::StatusOr<PyRef> Checked(PyObject* object) {
  if (object == nullptr) return TakePyError();
  return PyRef::Steal(object);
}

PyObject* PyFrom(const std::string& text) {
  return PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
}

PyObject* PyBytesFrom(const std::string& bytes) {
  return PyBytes_FromStringAndSize(bytes.data(), static_cast<Py_ssize_t>(bytes.size()));
}

PyObject* PyBufferOver(HostBytes block) {
  PyObject* type = BlockType();
  if (type == nullptr) return nullptr;
  BlockObject* self = PyObject_New(BlockObject, reinterpret_cast<PyTypeObject*>(type));
  if (self == nullptr) return nullptr;
  self->block = new HostBytes(std::move(block));
  return reinterpret_cast<PyObject*>(self);
}

std::string PyToString(PyObject* object) {
  if (object == nullptr) return "";
  if (PyBytes_Check(object)) {
    return std::string(PyBytes_AsString(object), static_cast<size_t>(PyBytes_Size(object)));
  }
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(object, &size);
  if (data == nullptr) {
    PyErr_Clear();
    return "";
  }
  return std::string(data, static_cast<size_t>(size));
}

int64_t PyToInt(PyObject* object) {
  const int64_t value = object != nullptr ? PyLong_AsLongLong(object) : 0;
  if (PyErr_Occurred() != nullptr) PyErr_Clear();
  return value;
}

double PyToDouble(PyObject* object) {
  const double value = object != nullptr ? PyFloat_AsDouble(object) : 0;
  if (PyErr_Occurred() != nullptr) PyErr_Clear();
  return value;
}

}  // namespace causeway::device
