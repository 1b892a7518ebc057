"""Programs that run in a worker's host memory: users' colocated Python, files, profiles."""

import json
import os
import re
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from causeway.worker import host_parts

# core::ProgramKind
_PLUGIN, _COLOCATED_PYTHON = 1, 2
# Elastic programs look for these words in an error to find a lost slice, which a user's own mistake
# is not.
_LOST = re.compile(r"\b(DATA_LOSS|DEADLINE_EXCEEDED|NOT_FOUND|INTERNAL)\b")
_KEPT_CODES = (
    "CANCELLED",
    "INVALID_ARGUMENT",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "UNAVAILABLE",
)
_TRACE_CHARS = 8000

_lock = threading.Lock()
_devices = None


def load(
    kind: int, name: str, code: bytes, worker: int, num_workers: int, devices_per_host: int
) -> host_parts.Program:
    def make() -> host_parts.Program:
        if os.environ.get("CAUSEWAY_HOST_PROGRAMS") == "0":
            raise PermissionError(
                "this cluster's workers run compiled programs only (CAUSEWAY_HOST_PROGRAMS=0)"
            )
        if kind == _COLOCATED_PYTHON:
            devices = _host_devices(worker, num_workers, devices_per_host)
            return _ColocatedPython(name, code, devices)
        if kind != _PLUGIN:
            raise ValueError(f"program kind {kind} does not run in host memory")
        plan = json.loads(code)
        if plan["op"] == "profile":
            from causeway.worker import host_profile  # pylint: disable=import-outside-toplevel

            return host_profile.Profile(plan, worker, devices_per_host)
        from causeway.worker import host_files  # pylint: disable=import-outside-toplevel

        return host_files.program(plan, worker, devices_per_host)

    return _Told(_telling(make, name, worker), name, worker)


class _Told:
    """A program whose errors say whose they are."""

    def __init__(self, program: host_parts.Program, name: str, worker: int):
        self._program = program
        self._name = name
        self._worker = worker

    def run(self, args: Sequence[Sequence[host_parts.Shard]]) -> list[list[host_parts.Part]]:
        return _telling(lambda: self._program.run(args), self._name, self._worker)

    def close(self) -> None:
        self._program.close()


def _telling(work: Callable[[], Any], name: str, worker: int) -> Any:
    try:
        return work()
    except BaseException as error:  # pylint: disable=broad-except
        message = _message(error, name, worker)
    raise RuntimeError(message)


def _message(error: BaseException, name: str, worker: int) -> str:
    kind, words = type(error).__name__, str(error)
    code, colon, rest = words.partition(": ")
    if kind == "JaxRuntimeError" and colon and code in _KEPT_CODES:
        words = rest
    elif isinstance(error, MemoryError):
        code = "RESOURCE_EXHAUSTED"
    elif isinstance(error, PermissionError):
        code = "PERMISSION_DENIED"
    elif isinstance(error, ImportError):
        code = "FAILED_PRECONDITION"
        words += " (colocated Python needs the modules of the client in the workers' environment)"
    else:
        code = "INVALID_ARGUMENT"
    trace = "".join(traceback.format_exception(error))[-_TRACE_CHARS:]
    told = f"{kind}: {words}\n\nraised by {name} on worker {worker}:\n{trace}"
    return f"{code}: " + _LOST.sub(lambda word: word[0].lower().replace("_", " "), told)


def _host_devices(worker, num_workers, devices_per_host):
    global _devices
    from causeway.worker import host_devices  # pylint: disable=import-outside-toplevel

    with _lock:
        if _devices is None:
            _devices = host_devices.HostDevices(worker, num_workers, devices_per_host)
        return _devices


class _ColocatedPython:
    """A function of jax.experimental.colocated_python with its specification."""

    def __init__(self, name: str, code: bytes, devices: Any):
        from jax.experimental.colocated_python import (  # pylint: disable=import-outside-toplevel
            serialization,
        )

        self._name = name
        self._devices = devices
        self._function, self._in_tree, self._in_specs, _, self._out_specs, _ = (
            serialization._deserialize(code)
        )
        # The client does not tell whether it uses 64-bit types, but where it does they show.
        self._x64 = any(_is_64_bit(s.dtype) for s in (*self._in_specs, *self._out_specs))

    def close(self) -> None:
        self._function = None

    def run(self, args: Sequence[Sequence[host_parts.Shard]]) -> list[list[host_parts.Part]]:
        import jax  # pylint: disable=import-outside-toplevel

        with jax.enable_x64(True):  # as they are, whatever the function uses
            leaves = [self._array(s, a) for s, a in zip(self._in_specs, args, strict=True)]
        positional, named = jax.tree.unflatten(self._in_tree, leaves)
        del leaves
        with jax.enable_x64(self._x64):
            results = jax.tree.leaves(self._function(*positional, **named))
        if len(results) != len(self._out_specs):
            raise ValueError(
                f"{self._name} returned {len(results)} arrays, its specification has"
                f" {len(self._out_specs)}"
            )
        return [self._parts(r, s) for r, s in zip(results, self._out_specs, strict=True)]

    def _array(self, spec, shards):
        import jax  # pylint: disable=import-outside-toplevel

        pieces = [jax.device_put(host_parts.view(s), self._devices.device(s[0])) for s in shards]
        return jax.make_array_from_single_device_arrays(spec.shape, spec.sharding, pieces)

    def _parts(self, result, spec):
        import jax  # pylint: disable=import-outside-toplevel

        if not isinstance(result, jax.Array):
            raise TypeError(f"{self._name} returned {type(result)} where a jax.Array has to be")
        if result.shape != spec.shape or result.dtype != spec.dtype:
            raise ValueError(
                f"{self._name} returned {result.dtype}{list(result.shape)}, its specification has"
                f" {spec.dtype}{list(spec.shape)}"
            )
        return [
            host_parts.part(self._devices.logical(s.device), np.asarray(s.data))
            for s in result.addressable_shards
        ]


def _is_64_bit(dtype: np.dtype) -> bool:
    return dtype in (np.int64, np.uint64, np.float64, np.complex128)
