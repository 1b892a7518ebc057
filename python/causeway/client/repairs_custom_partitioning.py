"""custom_partitioning on remote devices: partitions before the program is sent.

The stock lowering leaves it to XLA's partitioner to call back into Python for what each device
does. Here Shardy's propagation runs on a copy of the program, JAX's own function is asked as the
partitioner would ask it, and its answer takes the place of the call: a computation on each device's
part, as shard_map makes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from causeway.client import shardy
from causeway.client.mlir_types import numpy_dtype
from causeway.client.repairs_common import is_remote, wrap_compile

_TARGET = "CustomSPMDPartitioning"
_INSTALLED = "_causeway_custom_partitioning"


def install() -> None:
    wrap_compile(_INSTALLED, _wrap)


def _wrap(compile_and_load: Callable[..., Any]) -> Callable[..., Any]:
    from jax._src import custom_partitioning

    waiting = custom_partitioning._sharding_callbacks  # alive as long as their programs

    def backend_compile_and_load(
        backend: Any, module: Any, devices: Any, options: Any, *rest: Any
    ) -> Any:
        if waiting and is_remote(backend):
            module = _partition(module, options)
        return compile_and_load(backend, module, devices, options, *rest)

    return backend_compile_and_load


def _partition(module: Any, options: Any) -> Any:
    from jax._src.lib.mlir import ir

    with module.context, ir.Location.unknown():
        found = shardy.propagate(
            ir,
            module,
            options,
            _TARGET,
            "custom_partitioning on remote devices needs the partitioner Shardy: set "
            "jax_use_shardy_partitioner and give the function a sharding_rule",
        )
        if found is None:
            return module
        result = found.copy()
        for place, call in enumerate(shardy.custom_calls(ir, result, _TARGET)):
            # Of a function that is called in several ways the first counts; for the others values
            # are moved, as the partition function demands it.
            propagated = found.first(place)
            if propagated is not None:  # else nobody calls its function
                _replace(ir, result, call, _Parts(ir, found, propagated), f"partition_{place}")
        return result


class _Parts:
    """What JAX's function says about one call."""

    def __init__(self, ir: Any, found: shardy.Propagated, call: Any) -> None:
        from jax._src import custom_partitioning
        from jax._src.lib import xla_client as xc

        mesh = found.mesh(call)
        if mesh is None or mesh.device_ids:
            raise NotImplementedError(
                "custom_partitioning on remote devices needs a mesh in the program, with its "
                "devices in the order of the program's: use jax.set_mesh, or NamedSharding"
            )
        self.mesh = mesh
        results = [_shape(ir, value) for value in call.results]
        shardings = found.result_shardings(call)
        several = len(results) != 1
        shape = xc.Shape.tuple_shape(results) if several else results[0]
        self.code, self.operands, result = custom_partitioning._custom_partitioning_partition(
            [_shape(ir, value) for value in call.operands],
            found.operand_shardings(call),
            shape,
            xc.HloSharding.tuple_sharding(shape, shardings) if several else shardings[0],
            ir.StringAttr(call.attributes["backend_config"]).value_bytes,
        )
        self.results = result.tuple_elements() if several else [result]


def _shape(ir: Any, value: Any) -> Any:
    from jax._src.lib import xla_client as xc

    kind = ir.RankedTensorType(value.type)
    return xc.Shape.array_shape(numpy_dtype(kind.element_type), tuple(kind.shape))


def _replace(ir: Any, module: Any, call: Any, parts: _Parts, name: str) -> None:
    from jax._src.lib.mlir.dialects import func, sdy

    outer = _outer_axes(ir, call)
    main, kind = _import(ir, module, parts.code, name)
    with ir.InsertionPoint(call):
        each = sdy.ManualComputationOp(
            [value.type for value in call.results],
            list(call.operands),
            _per_value(ir, parts.mesh, parts.operands, call.operands),
            _per_value(ir, parts.mesh, parts.results, call.results),
            sdy.ManualAxesAttr.get(
                [ir.StringAttr.get(axis) for axis in parts.mesh.axes if axis not in outer]
            ),
        )
        block = ir.Block.create_at_start(each.body, kind.inputs)
        with ir.InsertionPoint(block):
            local = func.CallOp(kind.results, ir.FlatSymbolRefAttr.get(main), block.arguments)
            sdy.ReturnOp(local.results)
    for old, new in zip(call.results, each.results):
        old.replace_all_uses_with(new)
    call.erase()


def _outer_axes(ir: Any, op: Any) -> set[str]:
    """Axes that are manual already where the call stands."""
    axes: set[str] = set()
    parent = op.operation.parent
    while parent is not None and parent.name != "builtin.module":
        if parent.name == "sdy.manual_computation":
            axes |= {ir.StringAttr(axis).value for axis in parent.attributes["manual_axes"]}
        parent = parent.parent
    return axes


def _per_value(ir: Any, mesh: shardy.Mesh, shardings: Any, values: Any) -> Any:
    """HloShardings in Shardy's words."""
    from jax._src.sharding_impls import parse_flatten_op_sharding
    from jax.sharding import AbstractMesh

    abstract = AbstractMesh(tuple(mesh.axes.values()), tuple(mesh.axes))
    texts = []
    for sharding, value in zip(shardings, values):
        (spec,) = parse_flatten_op_sharding(sharding, abstract)
        rank = ir.RankedTensorType(value.type).rank
        dimensions = []
        for entry in (*spec, *[None] * rank)[:rank]:
            axes = (entry,) if isinstance(entry, str) else entry or ()
            dimensions.append("{" + ", ".join(f'"{axis}"' for axis in axes) + "}")
        texts.append(f"<@{mesh.name}, [{', '.join(dimensions)}]>")
    return ir.Attribute.parse(f"#sdy.sharding_per_value<[{', '.join(texts)}]>")


def _import(ir: Any, module: Any, code: bytes, name: str) -> tuple[str, Any]:
    """Moves another module's functions into this one; the name and type of its main."""
    other = ir.Module.parse(code, module.context)
    for op in list(other.body.operations):
        if op.operation.name != "func.func":
            raise NotImplementedError(
                f"custom_partitioning on remote devices: {op.operation.name} in the function of a "
                "partition"
            )
        old = ir.StringAttr(op.attributes["sym_name"]).value
        ir.SymbolTable.replace_all_symbol_uses(old, f"{name}_{old}", other.operation)
        ir.SymbolTable.set_symbol_name(op, f"{name}_{old}")
        ir.SymbolTable.set_visibility(op, "private")
    _renumber_channels(ir, module, other)
    for op in list(other.body.operations):
        op.detach_from_parent()
        module.body.append(op)
    main = ir.SymbolTable(module.operation)[f"{name}_main"]
    for attributes in ("arg_attrs", "res_attrs"):  # of an entry point, which it is no more
        if attributes in main.attributes:
            del main.attributes[attributes]
    return f"{name}_main", ir.FunctionType(ir.TypeAttr(main.attributes["function_type"]).value)


_CHANNEL = re.compile(r"handle = (\d+), type = (\d+)")


def _channels(ir: Any, module: Any) -> list[tuple[Any, int, int]]:
    """(operation, channel, kind) of the collectives."""
    found = []

    def visit(op: Any) -> Any:
        if "channel_handle" in op.attributes:
            match = _CHANNEL.search(str(op.attributes["channel_handle"]))
            if match:
                found.append((op, int(match[1]), int(match[2])))
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return found


def _renumber_channels(ir: Any, module: Any, other: Any) -> None:
    """Collectives of two modules have the same numbers, which in one would tie them together."""
    taken = max((channel for _, channel, _ in _channels(ir, module)), default=0)
    for op, channel, kind in _channels(ir, other):
        if channel > 0:
            op.attributes["channel_handle"] = ir.Attribute.parse(
                f"#stablehlo.channel_handle<handle = {taken + channel}, type = {kind}>"
            )
