// Python by its stable ABI, for our C++: owned references, the GIL, errors as absl::Status.
//
// Only jax_device and the extension module include this. One binary serves any CPython from 3.11.
#pragma once

#define PY_SSIZE_T_CLEAN
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030b0000
#endif
#include <Python.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "causeway/device/host_bytes.h"

namespace causeway::device {

// An owned reference. May be destroyed on any thread, with or without the GIL: the object is then
// released at the next GilScope of any thread.
class PyRef {
 public:
  PyRef() = default;
  // Takes over a new reference.
  static PyRef Steal(PyObject* object) {
    PyRef r;
    r.object_ = object;
    return r;
  }
  PyRef(PyRef&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  PyRef& operator=(PyRef&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  PyRef(const PyRef&) = delete;
  PyRef& operator=(const PyRef&) = delete;
  ~PyRef();

  PyObject* get() const { return object_; }
  // Gives the reference away.
  PyObject* release() { return std::exchange(object_, nullptr); }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  PyObject* object_ = nullptr;
};

// Holds the GIL; releases what PyRef destructors left behind. A thread's Python state is kept from
// its first scope to its end.
class GilScope {
 public:
  GilScope();
  ~GilScope();
  GilScope(const GilScope&) = delete;
  GilScope& operator=(const GilScope&) = delete;

 private:
  PyGILState_STATE state_;
};

// Whether released objects wait for the next GilScope.
bool HasPyGarbage();

// With the GIL: the pending Python exception as a status, and clears it. "CODE: text" messages of
// XLA keep their code; errors of a vanished peer are marked PeerFailure.
absl::Status TakePyError();
// The same mapping for a message alone.
absl::Status StatusFromXlaText(const std::string& type_name, const std::string& text);

// With the GIL: the pending exception, or what `object` (new reference, maybe null) is.
absl::StatusOr<PyRef> Checked(PyObject* object);

// With the GIL: values into Python. Null on failure, with an exception pending.
PyObject* PyFrom(const std::string& text);
PyObject* PyBytesFrom(const std::string& bytes);
// An object with the buffer protocol over `block`, which it keeps alive.
PyObject* PyBufferOver(HostBytes block);

// With the GIL: values out of Python; a wrong type clears the exception and yields "" or 0.
std::string PyToString(PyObject* object);  // str or bytes
int64_t PyToInt(PyObject* object);
double PyToDouble(PyObject* object);

}  // namespace causeway::device
