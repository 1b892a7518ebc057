"""jax.debug.inspect_array_sharding and visualize_array_sharding in a jit over remote devices.

The stock lowering puts the address of a Python function into the program, for XLA's partitioner to
call, but that partitioner runs in another process. What it would tell is decided by one compiler
pass, Shardy's propagation, which jaxlib can run here on a copy of the program. The functions are
called with what it finds; the calls themselves are left out of what is compiled.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from causeway.client import shardy
from causeway.client.repairs_common import is_remote, wrap_compile

_TARGET = "InspectSharding"
_INSTALLED = "_causeway_sharding_inspection"

# By what the stock encoding writes into programs; alive as long as a program needs them.
_functions: weakref.WeakValueDictionary[bytes, Callable[[Any], None]] = (
    weakref.WeakValueDictionary()
)


def install() -> None:
    from jaxlib import xla_client

    encode = xla_client.encode_inspect_sharding_callback
    if hasattr(encode, _INSTALLED):
        return

    def encode_and_keep(function: Callable[[Any], None]) -> bytes:
        key = encode(function)
        _functions[key] = function
        return key

    setattr(encode_and_keep, _INSTALLED, True)
    xla_client.encode_inspect_sharding_callback = encode_and_keep
    wrap_compile(_INSTALLED, _wrap)


def _wrap(compile_and_load: Callable[..., Any]) -> Callable[..., Any]:
    def backend_compile_and_load(
        backend: Any, module: Any, devices: Any, options: Any, *rest: Any
    ) -> Any:
        if _functions and is_remote(backend):
            module = _inspect(module, options)
        return compile_and_load(backend, module, devices, options, *rest)

    return backend_compile_and_load


def _inspect(module: Any, options: Any) -> Any:
    """Calls the functions of the module's inspections; returns the module without them."""
    from jax._src.lib.mlir import ir

    with module.context, ir.Location.unknown():
        found = shardy.propagate(
            ir,
            module,
            options,
            _TARGET,
            "jax.debug.inspect_array_sharding in a jit over remote devices needs the "
            "partitioner Shardy: set jax_use_shardy_partitioner, or look at .sharding of a "
            "result of the jit",
        )
        if found is None:
            return module
        for call in found.calls:
            key = ir.StringAttr(call.attributes["backend_config"]).value_bytes
            function = _functions.get(key)
            if function is None:
                raise NotImplementedError(
                    "the function of a jax.debug.inspect_array_sharding is gone; trace and lower "
                    "the program again"
                )
            function(found.operand_shardings(call)[0])
        rest = found.copy()
        for call in shardy.custom_calls(ir, rest, _TARGET):
            call.results[0].replace_all_uses_with(call.operands[0])
            call.erase()
        return rest
