"""Refuses jax.debug.inspect_array_sharding inside a jit over several remote devices.

It would put an address of this process into the program, for the compiler of another one to call.
"""

from __future__ import annotations

from typing import Any

from causeway.client.repairs_common import is_remote


def install() -> None:
    from jax._src import debugging
    from jax._src.interpreters import mlir

    original = debugging._inspect_sharding_lowering_rule
    if getattr(original, "_causeway", False):
        return

    def rule(context: Any, value: Any, *, callback: Any) -> Any:
        devices = _devices(context.module_context.axis_context)
        if len(devices) > 1 and is_remote(devices[0].client):
            raise NotImplementedError(
                "jax.debug.inspect_array_sharding needs the compiler in this process, which remote "
                "devices do not have; look at .sharding of a result of the jit, or inspect outside"
            )
        return original(context, value, callback=callback)

    rule._causeway = True  # type: ignore[attr-defined]
    debugging._inspect_sharding_lowering_rule = rule
    mlir.register_lowering(debugging.inspect_sharding_p, rule)


def _devices(axis_context: Any) -> tuple[Any, ...]:
    assigned = getattr(axis_context, "device_assignment", None)
    if assigned is None:
        assigned = getattr(getattr(axis_context, "mesh", None), "_flat_devices_tuple", None)
    return tuple(assigned or ())
