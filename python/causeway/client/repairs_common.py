"""What the repairs share: new backends, telling remote from local, and this machine's CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def on_new_backend(hook: Callable[[Any], None]) -> None:
    """Calls `hook` with each backend that JAX makes from now on, JAX's lock of backends held."""
    from jax._src import xla_bridge

    register = getattr(xla_bridge, "register_backend_initialization_hook", None)
    if register is not None:
        register(hook)
        return
    make = xla_bridge._init_backend  # JAX up to 0.9

    @functools.wraps(make)
    def init_backend(platform: str) -> Any:
        backend = make(platform)
        hook(backend)
        return backend

    xla_bridge._init_backend = init_backend


def wrap_compile(mark: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Puts `wrap(function)` in the place of JAX's backend_compile_and_load, once for each mark.

    The marks of what is wrapped stay visible, and its signature does.
    """
    from jax._src import compiler

    original = compiler.backend_compile_and_load
    if hasattr(original, mark):
        return
    wrapped = functools.wraps(original)(wrap(original))
    setattr(wrapped, mark, True)
    compiler.backend_compile_and_load = wrapped


def is_remote(client: Any) -> bool:
    return str(getattr(client, "runtime_type", "")).startswith("proxy")


def is_remote_array(array: Any) -> bool:
    return is_remote(next(iter(array.sharding.device_set)).client)


def local_cpu() -> Any:
    """The first local CPU device, which the patch "local-cpu" provides."""
    from jax._src import xla_bridge

    return xla_bridge.local_devices(backend="cpu")[0]
