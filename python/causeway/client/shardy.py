"""Shardy's propagation in this process: how the partitioner would shard the values of a module.

The pass and its dialect are in jaxlib, so that what XLA's partitioner on a worker is going to
decide can be known here, before the program is sent.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from causeway.client.hlo_shardings import Axis, Dimensions, hlo_sharding

_PIPELINE = "builtin.module(sdy-propagation-pipeline)"
_PROBE = "causeway_sharding_of_operand"
_PLACE = "causeway.place"
_OPERAND = "causeway.operand"


@dataclasses.dataclass(frozen=True)
class Mesh:
    name: str
    axes: dict[str, int]  # sizes, in order
    device_ids: list[int]  # empty: 0, 1, 2, ...


def custom_calls(ir: Any, module: Any, *targets: str) -> list[Any]:
    """The custom calls of these names, in the order of the module's text."""
    found = []

    def visit(op: Any) -> Any:
        is_call = op.name == "stablehlo.custom_call"
        if is_call and ir.StringAttr(op.attributes["call_target_name"]).value in targets:
            found.append(op)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return found


def meshes(ir: Any, module: Any) -> dict[str, Mesh]:
    from jax._src.lib.mlir.dialects import sdy

    found = {}
    for op in module.body.operations:
        if op.operation.name == "sdy.mesh":
            mesh = sdy.MeshAttr(op.attributes["mesh"])
            axes = {axis.name: axis.size for axis in map(sdy.MeshAxisAttr, mesh.axes)}
            name = ir.StringAttr(op.attributes["sym_name"]).value
            found[name] = Mesh(name, axes, list(mesh.device_ids))
    return found


def propagate(ir: Any, module: Any, options: Any, target: str, needs: str) -> Propagated | None:
    """The calls of `target` after propagation; None when the module has none.

    Throws NotImplementedError, saying what it `needs`, where another partitioner would decide.
    """
    from jax._src.interpreters import mlir

    if not custom_calls(ir, module, target):
        return None
    if not options.executable_build_options.use_shardy_partitioner:
        raise NotImplementedError(needs)
    return Propagated(ir, module.context, mlir.module_to_bytecode(module), target)


class Propagated:
    """The custom calls of one name in a module (given as bytecode), after propagation.

    Functions that are called in several ways are there several times, and so are their calls.
    """

    def __init__(self, ir: Any, context: Any, code: bytes, target: str) -> None:
        from jax._src.interpreters import mlir
        from jax._src.lib.mlir import passmanager

        self._ir = ir
        self._context, self._code = context, code
        prepared = self.copy()
        for place, call in enumerate(custom_calls(ir, prepared, target)):
            _number(ir, call, _PLACE, place)
            for number in range(len(call.operands)):
                _probe(ir, call, number)
        # Read anew: passes destroy operations, and Python must not hold one that is gone.
        self._module = module = ir.Module.parse(mlir.module_to_bytecode(prepared), context)
        passmanager.PassManager.parse(_PIPELINE).run(module.operation)
        self._meshes = meshes(ir, module)
        self.calls: list[Any] = []
        self._probes: list[list[Any]] = []  # of each call, one an operand
        before: dict[int, Any] = {}
        for op in custom_calls(ir, module, target, _PROBE):
            if _OPERAND in op.attributes:
                before[ir.IntegerAttr(op.attributes[_OPERAND]).value] = op
            else:
                self.calls.append(op)
                self._probes.append([before[number] for number in range(len(op.operands))])

    def copy(self) -> Any:
        """The module as it was before."""
        return self._ir.Module.parse(self._code, self._context)

    def first(self, place: int) -> Any | None:
        """The propagated call that was this one of the module's; None if it is out of reach."""
        for call in self.calls:
            if self._ir.IntegerAttr(call.attributes[_PLACE]).value == place:
                return call
        return None

    def mesh(self, call: Any) -> Mesh | None:
        """The mesh that the call's values are sharded over; the module's first if none is."""
        for name, _ in [*self._operands(call), *self._results(call)]:
            if name:
                return self._meshes[name]
        return next(iter(self._meshes.values()), None)

    def operand_shardings(self, call: Any) -> list[Any]:
        """An HloSharding each."""
        return [self._hlo(*found) for found in self._operands(call)]

    def result_shardings(self, call: Any) -> list[Any]:
        return [self._hlo(*found) for found in self._results(call)]

    def _operands(self, call: Any) -> list[tuple[str, Dimensions]]:
        probes = self._probes[self.calls.index(call)]
        makers = [getattr(operand.owner, "name", "") for operand in call.operands]
        return [
            _shardings(self._ir, operand.owner if maker == "sdy.reshard" else probe)[0]
            for operand, maker, probe in zip(call.operands, makers, probes)
        ]

    def _results(self, call: Any) -> list[tuple[str, Dimensions]]:
        return _shardings(self._ir, call)

    def _hlo(self, name: str, dimensions: Dimensions) -> Any:
        mesh = self._meshes[name] if name else Mesh("", {}, [])
        return hlo_sharding(mesh.axes, mesh.device_ids, dimensions)


def _number(ir: Any, op: Any, name: str, value: int) -> None:
    op.attributes[name] = ir.IntegerAttr.get(ir.IntegerType.get_signless(32), value)


def _probe(ir: Any, call: Any, number: int) -> None:
    """Puts an operation before the call that takes the operand's sharding on.

    Block arguments bear none themselves. Nothing uses its result, so it changes nothing.
    """
    from jax._src.lib.mlir.dialects import hlo

    operand = call.operands[number]
    with ir.InsertionPoint(call):
        probe = hlo.CustomCallOp(
            [operand.type],
            [operand],
            call_target_name=ir.StringAttr.get(_PROBE),
            has_side_effect=ir.BoolAttr.get(True),
        )
    probe.attributes["sdy.sharding_rule"] = _as_operand(ir, operand)
    _number(ir, probe, _OPERAND, number)


def _as_operand(ir: Any, operand: Any) -> Any:
    """The rule that a result is sharded as the operand is; without one nothing is propagated."""
    sizes = ir.RankedTensorType(operand.type).shape
    names = [*"ijklmnopqrstuvwxyz", *(f"z_{k}" for k in range(1, len(sizes)))]  # as Shardy has them
    factors = names[: len(sizes)]
    side = f"([{', '.join(factors)}])"
    given = ", ".join(f"{name}={size}" for name, size in zip(factors, sizes))
    return ir.Attribute.parse(f"#sdy.op_sharding_rule<{side}->{side} {{{given}}}, custom>")


def _shardings(ir: Any, op: Any) -> list[tuple[str, Dimensions]]:
    """(mesh, axes of each dimension) of each result; ("", []) for what has no sharding."""
    from jax._src.lib.mlir.dialects import sdy

    def axis_and_part(attribute: Any) -> Axis:
        axis = sdy.AxisRefAttr(attribute)
        part = axis.sub_axis_info
        return axis.name, (part.pre_size, part.size) if part else None

    def read(attribute: Any) -> tuple[str, Dimensions]:
        tensor = sdy.TensorShardingAttr(attribute)
        dimensions = [
            [axis_and_part(axis) for axis in sdy.DimensionShardingAttr(dimension).axes]
            for dimension in tensor.dimension_shardings
        ]
        return ir.FlatSymbolRefAttr(tensor.mesh_or_ref).value, dimensions

    if op.name == "sdy.reshard":
        return [read(op.attributes["sharding"])]
    if "sdy.sharding" not in op.attributes:
        return [("", [])] * len(op.results)
    return [
        read(s) for s in sdy.TensorShardingPerValueAttr(op.attributes["sdy.sharding"]).shardings
    ]
