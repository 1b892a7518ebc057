"""Collectives in two halves (psum_start and the like, then done()): sent as one operation.

The stock client writes programs in a StableHLO that is some weeks old, which lacks these operations
while they are new. What they compute is the collective; that it may overlap with what stands
between the halves is a hint, and compilers find such overlaps by themselves as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from causeway.client.repairs_common import is_remote, wrap_compile

_INSTALLED = "_causeway_async_collectives"
_REFUSAL = "Failed to serialize StableHLO"
# A hint that one value should be computed before another. Those for a first half go with it; the
# others stay, and cannot contradict each other, since nothing else hangs on a first half.
_ORDER = "control_dep"


def install() -> None:
    wrap_compile(_INSTALLED, _wrap)


def _wrap(compile_and_load: Callable[..., Any]) -> Callable[..., Any]:
    import jax

    def backend_compile_and_load(
        backend: Any, module: Any, devices: Any, options: Any, *rest: Any
    ) -> Any:
        try:
            return compile_and_load(backend, module, devices, options, *rest)
        except jax.errors.JaxRuntimeError as error:
            # Only then: other programs need no look, and newer clients may need no change.
            whole = _whole(module) if is_remote(backend) and _REFUSAL in str(error) else None
            if whole is None:
                raise
        return compile_and_load(backend, whole, devices, options, *rest)

    return backend_compile_and_load


def _whole(module: Any) -> Any | None:
    """A copy without halves; None if there are none, or one of them goes elsewhere than done()."""
    from jax._src.interpreters import mlir
    from jax._src.lib.mlir import ir

    with module.context as context, ir.Location.unknown():
        copy = ir.Module.parse(mlir.module_to_bytecode(module), context)
        starts: list[Any] = []

        def visit(op: Any) -> Any:
            if op.name == "stablehlo.async_start":
                starts.append(op)
            return ir.WalkResult.ADVANCE

        copy.operation.walk(visit)
        for start in starts:
            users = [use.owner for use in start.results[0].uses]
            ends = [user for user in users if user.operation.name == "stablehlo.async_done"]
            hints = [user for user in users if _is_hint(ir, user)]
            if len(ends) + len(hints) != len(users):
                return None
            for hint in hints:
                hint.operation.erase()
            _join(start, ends)
        return copy if starts else None


def _is_hint(ir: Any, op: Any) -> bool:
    if op.operation.name != "stablehlo.custom_call":
        return False
    return ir.StringAttr(op.attributes["call_target_name"]).value == _ORDER


def _join(start: Any, ends: list[Any]) -> None:
    block = start.regions[0].blocks[0]
    for inside, outside in zip(block.arguments, start.operands):
        inside.replace_all_uses_with(outside)
    *body, last = list(block.operations)
    values = list(last.operands)
    for op in body:
        op.operation.move_before(start)
    for end in ends:
        for old, new in zip(end.results, values):
            old.replace_all_uses_with(new)
        end.operation.erase()
    start.erase()
