// The extension module causeway._native._worker: hands a jaxlib backend to the C++ worker.
//
// Python loads this, calls main(backend, options) on its main thread, and the C++ owns the process
// from there; that spares the worker all questions of environments and libpython.
#include "causeway/device/python.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "causeway/base/log.h"
#include "causeway/device/held_threads.h"
#include "causeway/device/jax_device.h"
#include "causeway/worker/worker.h"

namespace causeway {
namespace {

using device::PyRef;

std::string TextOption(PyObject* options, const char* name) {
  return device::PyToString(PyDict_GetItemString(options, name));
}

worker::WorkerOptions ReadOptions(PyObject* options) {
  worker::WorkerOptions result;
  result.head = TextOption(options, "head");
  result.host = TextOption(options, "host");
  result.worker = static_cast<int>(device::PyToInt(PyDict_GetItemString(options, "worker")));
  result.spare = device::PyToInt(PyDict_GetItemString(options, "spare")) != 0;
  result.data_port = static_cast<int>(device::PyToInt(PyDict_GetItemString(options, "port")));
  result.connect_timeout =
      absl::Seconds(device::PyToDouble(PyDict_GetItemString(options, "connect_seconds")));
  result.reattach_timeout =
      absl::Seconds(device::PyToDouble(PyDict_GetItemString(options, "reattach_seconds")));
  return result;
}

absl::Status Serve(PyRef backend, worker::WorkerOptions options) {
  if (const char* faults = std::getenv("CAUSEWAY_FAULTS"); faults != nullptr) {
    auto plan = worker::ParseFaultPlan(faults);
    if (!plan.ok()) return plan.status();
    options.faults = *plan;
  }
  SetLogRole(options.spare ? "spare" : absl::StrCat("worker ", options.worker).c_str());
  return worker::RunWorker(options, [&backend](std::function<bool(int, int)> is_ours) {
    device::GilScope gil;
    return device::CreateJaxDevice(std::move(backend), std::move(is_ours));
  });
}

// main(backend, options) does not return: destructors of a live XLA client may hang or crash while
// its threads still run, and the operating system frees the memory faster.
PyObject* Main(PyObject*, PyObject* args) {
  PyObject *backend = nullptr, *options = nullptr;
  if (!PyArg_ParseTuple(args, "OO", &backend, &options)) return nullptr;
  Py_INCREF(backend);
  PyRef owned = PyRef::Steal(backend);
  worker::WorkerOptions parsed = ReadOptions(options);
  // Debian builds Abseil with its lock-order checker on: a graph search at every lock.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  absl::Status end;
  Py_BEGIN_ALLOW_THREADS
  end = Serve(std::move(owned), std::move(parsed));
  if (!end.ok()) {
    const std::string line =
        absl::StrCat("causeway-worker: ", std::string(end.message()), "\n");
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
  }
  std::fflush(nullptr);
  ::_exit(end.ok() ? 0 : 1);
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}

// keep_threads_back(running) begins a scope on the calling thread, keep_threads_back(0) ends it.
PyObject* KeepThreadsBack(PyObject*, PyObject* args) {
  int running = 0;
  if (!PyArg_ParseTuple(args, "i", &running)) return nullptr;
  return PyBool_FromLong(device::KeepThreadsBack(running) ? 1 : 0);
}

PyMethodDef kMethods[] = {
    {"keep_threads_back", &KeepThreadsBack, METH_VARARGS,
     "While it is on, XLA clients made on this thread run so many threads inside operations."},
    {"main", &Main, METH_VARARGS, "Serves the head until it says shutdown; exits the process."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef kModule = {PyModuleDef_HEAD_INIT, "_worker", "The C++ half of a Causeway worker.", 0,
                       kMethods,              nullptr,   nullptr,                              nullptr,
                       nullptr};

}  // namespace
}  // namespace causeway

PyMODINIT_FUNC PyInit__worker() { return PyModule_Create(&causeway::kModule); }
