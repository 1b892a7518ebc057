"""Host callbacks: jax.debug.print, pure_callback, io_callback, breakpoint, checkify, spsolve,
buffer_callback.

JAX lowers all of them to one custom call and hands the Python functions to the compiler, which the
stock client cannot take. Here, just before the compiler, the functions go into a table of this
process and the custom calls name their places in it; workers call back through the head.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from causeway.client import callbacks_buffers
from causeway.client.callbacks_channel import Channel
from causeway.client.repairs_common import is_remote, wrap_compile

log = logging.getLogger("causeway.client")

# XLA's partitioners treat exactly these names specially, so the workers' handler has to bear them.
# The names with "gpu" are the free ones in a process that has jaxlib's own CPU handlers.
_TARGETS = {
    f"xla_ffi{kind}_python_{device}_callback": f"xla_ffi{kind}_python_gpu_callback"
    for kind in ("", "_partitioned")
    for device in ("cpu", "gpu")
}
_TARGET_OF_BUFFERS = "xla_ffi_python_gpu_callback"
_PARAMETERS = ["backend", "module", "executable_devices", "options", "host_callbacks"]

# HOST:PORT of the callback port, for clients that reach the head through a tunnel.
VARIABLE = "CAUSEWAY_CALLBACKS_TARGET"
_PORT_ATTRIBUTE = "causeway_callback_port"

_lock = threading.Lock()
_channels: dict[tuple[str, int], Channel] = {}


class _UnknownLowering(Exception):
    """This version of JAX writes callbacks in another way than the one known here."""


def install() -> None:
    wrap_compile("_causeway_callbacks", _wrap)


def _wrap(original: Callable[..., Any]) -> Callable[..., Any]:
    import jax

    found = list(inspect.signature(original).parameters)
    if found != _PARAMETERS:
        raise RuntimeError(f"JAX {jax.__version__} compiles with parameters {found}")

    def backend_compile_and_load(
        backend: Any, module: Any, executable_devices: Any, options: Any, host_callbacks: Any
    ) -> Any:
        if host_callbacks and is_remote(backend) and all(map(callable, host_callbacks)):
            try:
                return _compile(
                    original, backend, module, executable_devices, options, host_callbacks
                )
            except _UnknownLowering as error:
                _warn_once(f"host callbacks stay off: {error} (JAX {jax.__version__})")
        return original(backend, module, executable_devices, options, host_callbacks)

    return backend_compile_and_load


def _compile(
    original: Any, backend: Any, module: Any, devices: Any, options: Any, functions: Sequence[Any]
) -> Any:
    channel = _channel(backend)
    copy, calls = _copy(module)
    group = channel.add(_adapted(functions, calls))
    try:
        _rename(copy, calls, channel.attribute(group))
        return original(backend, copy, devices, options, ())
    except BaseException:
        channel.drop(group)
        raise


def _channel(backend: Any) -> Channel:
    address = _address(backend)
    with _lock:
        channel = _channels.get(address)
        # A forked child has none of its parent's threads.
        if channel is None or channel.pid != os.getpid():
            channel = _channels[address] = Channel(*address)
    try:
        channel.connect()
    except OSError as error:
        raise RuntimeError(
            f"the program has host callbacks, but {address[0]}:{address[1]}, where the head "
            f"listens for them, cannot be reached: {error}. Open that port for this machine, or "
            f"set {VARIABLE}=HOST:PORT to where a tunnel leads to it"
        ) from error
    return channel


def _address(backend: Any) -> tuple[str, int]:
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return _split(chosen, VARIABLE)
    port = getattr(backend, _PORT_ATTRIBUTE, None)
    if not port:
        raise _UnknownLowering("this cluster's head serves no callbacks; update it")
    import jax

    target = jax.config.read("jax_backend_target") or ""
    host, _ = _split(target.split("://")[-1], "JAX_BACKEND_TARGET")
    return host, int(port)


def _split(text: str, name: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{name}={text!r} is not of the form HOST:PORT")
    return host.strip("[]"), int(port)


@dataclasses.dataclass(frozen=True)
class _Call:
    """A custom call of the module that runs Python, and which of its functions."""

    op: Any
    target: str  # the name that workers serve it under
    index: int
    results: callbacks_buffers.Results | None  # of calls that fill buffers


def _copy(module: Any) -> tuple[Any, list[_Call]]:
    """A copy of the module, and the callbacks in it."""
    from jax._src.interpreters import mlir
    from jax._src.lib.mlir import ir

    with module.context as context, ir.Location.unknown():
        copy = ir.Module.parse(mlir.module_to_bytecode(module), context)
        found = []

        def visit(op: Any) -> Any:
            if op.name == "stablehlo.custom_call":
                target = ir.StringAttr(op.attributes["call_target_name"]).value
                if target in _TARGETS or target.startswith(callbacks_buffers.TARGET_PREFIX):
                    found.append((op, target))  # raising inside the walk would lose the type
            return ir.WalkResult.ADVANCE

        copy.operation.walk(visit)
        calls = []
        for op, target in found:
            if target in _TARGETS:
                calls.append(_Call(op, _TARGETS[target], _index(ir, op), None))
            else:
                results = callbacks_buffers.results_of(ir, op)
                calls.append(_Call(op, _TARGET_OF_BUFFERS, _index(ir, op), results))
    return copy, calls


def _adapted(functions: Sequence[Any], calls: list[_Call]) -> list[Any]:
    """The functions as workers call them: NumPy arrays in, NumPy arrays out."""
    indices = {call.index for call in calls}
    if indices != set(range(len(functions))):
        raise _UnknownLowering(f"calls of functions {sorted(indices)} of {len(functions)}")
    adapted = list(functions)
    for call in calls:
        if call.results is not None:
            adapted[call.index] = callbacks_buffers.adapt(functions[call.index], call.results)
    return adapted


def _rename(copy: Any, calls: list[_Call], attribute: str) -> None:
    """Makes the callbacks name the group in place of a slot of this process."""
    from jax._src.lib.mlir import ir

    with copy.context, ir.Location.unknown():
        number = ir.IntegerType.get_unsigned(64)
        for call in calls:
            call.op.attributes["call_target_name"] = ir.StringAttr.get(call.target)
            call.op.attributes["mhlo.backend_config"] = ir.DictAttr.get(
                {
                    "callback_id": ir.IntegerAttr.get(number, call.index),
                    "channel": ir.StringAttr.get(attribute),
                }
            )


def _index(ir: Any, op: Any) -> int:
    try:
        return int(ir.IntegerAttr(ir.DictAttr(op.attributes["mhlo.backend_config"])["index"]).value)
    except (KeyError, ValueError, TypeError) as error:
        raise _UnknownLowering(f"a callback without an index: {error}") from error


_warned: set[str] = set()


def _warn_once(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        log.warning("%s", text)
