"""Host callbacks: jax.debug.print, pure_callback, io_callback, breakpoint, checkify, spsolve.

JAX lowers all of them to one custom call and hands the Python functions to the compiler, which the
stock client cannot take. Here, just before the compiler, the functions go into a table of this
process and the custom calls name their places in it; workers call back through the head.
"""

from __future__ import annotations

import inspect
import logging
import os
import threading
from collections.abc import Sequence
from typing import Any

from causeway.client.callbacks_channel import Channel

log = logging.getLogger("causeway.client")

# XLA's partitioners treat exactly these names specially, so the workers' handler has to bear them.
# The names with "gpu" are the free ones in a process that has jaxlib's own CPU handlers.
_TARGETS = {
    f"xla_ffi{kind}_python_{device}_callback": f"xla_ffi{kind}_python_gpu_callback"
    for kind in ("", "_partitioned")
    for device in ("cpu", "gpu")
}
_PARAMETERS = ["backend", "module", "executable_devices", "options", "host_callbacks"]

# HOST:PORT of the callback port, for clients that reach the head through a tunnel.
VARIABLE = "CAUSEWAY_CALLBACKS_TARGET"
_PORT_ATTRIBUTE = "causeway_callback_port"

_lock = threading.Lock()
_channels: dict[tuple[str, int], Channel] = {}


class _UnknownLowering(Exception):
    """This version of JAX writes callbacks in another way than the one known here."""


def install() -> None:
    import jax
    from jax._src import compiler

    original = compiler.backend_compile_and_load
    if getattr(original, "_causeway", False):
        return
    found = list(inspect.signature(original).parameters)
    if found != _PARAMETERS:
        raise RuntimeError(f"JAX {jax.__version__} compiles with parameters {found}")

    def backend_compile_and_load(
        backend: Any, module: Any, executable_devices: Any, options: Any, host_callbacks: Any
    ) -> Any:
        if host_callbacks and _is_remote(backend) and all(map(callable, host_callbacks)):
            try:
                return _compile(
                    original, backend, module, executable_devices, options, host_callbacks
                )
            except _UnknownLowering as error:
                _warn_once(f"host callbacks stay off: {error} (JAX {jax.__version__})")
        return original(backend, module, executable_devices, options, host_callbacks)

    backend_compile_and_load._causeway = True  # type: ignore[attr-defined]
    compiler.backend_compile_and_load = backend_compile_and_load


def _is_remote(backend: Any) -> bool:
    return str(getattr(backend, "runtime_type", "")).startswith("proxy")


def _compile(
    original: Any, backend: Any, module: Any, devices: Any, options: Any, functions: Sequence[Any]
) -> Any:
    channel = _channel(backend)
    group = channel.add(functions)
    try:
        renamed = _rename(module, len(functions), channel.attribute(group))
        return original(backend, renamed, devices, options, ())
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


def _rename(module: Any, functions: int, attribute: str) -> Any:
    """A copy of the module whose callbacks name the group in place of a slot of this process."""
    from jax._src.interpreters import mlir
    from jax._src.lib.mlir import ir

    with module.context as context, ir.Location.unknown():
        copy = ir.Module.parse(mlir.module_to_bytecode(module), context)
        calls, of_buffers = [], []

        def visit(op: Any) -> Any:
            if op.name == "stablehlo.custom_call":
                target = ir.StringAttr(op.attributes["call_target_name"]).value
                if target in _TARGETS:
                    calls.append((op, target))
                elif target.startswith("xla_buffer_python_"):
                    of_buffers.append(op)  # raising inside the walk would lose the type
            return ir.WalkResult.ADVANCE

        copy.operation.walk(visit)
        if of_buffers:
            raise NotImplementedError(
                "jax.experimental.buffer_callback needs the devices' memory in this process; use "
                "pure_callback or io_callback on remote devices"
            )
        indices = [_index(ir, op) for op, _ in calls]
        if set(indices) != set(range(functions)):
            raise _UnknownLowering(f"calls of functions {sorted(set(indices))} of {functions}")
        number = ir.IntegerType.get_unsigned(64)
        for (op, target), index in zip(calls, indices):
            op.attributes["call_target_name"] = ir.StringAttr.get(_TARGETS[target])
            op.attributes["mhlo.backend_config"] = ir.DictAttr.get(
                {
                    "callback_id": ir.IntegerAttr.get(number, index),
                    "channel": ir.StringAttr.get(attribute),
                }
            )
        return copy


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
