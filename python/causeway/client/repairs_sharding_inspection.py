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

from causeway.client.hlo_shardings import hlo_sharding
from causeway.client.repairs_common import is_remote

_TARGET = "InspectSharding"
_PIPELINE = "builtin.module(sdy-propagation-pipeline)"
_INSTALLED = "_causeway_sharding_inspection"

# By what the stock encoding writes into programs; alive as long as a program needs them.
_functions: weakref.WeakValueDictionary[bytes, Callable[[Any], None]] = (
    weakref.WeakValueDictionary()
)


def install() -> None:
    from jax._src import compiler
    from jaxlib import xla_client

    encode = xla_client.encode_inspect_sharding_callback
    compile_and_load = compiler.backend_compile_and_load
    if hasattr(encode, _INSTALLED):
        return

    def encode_and_keep(function: Callable[[Any], None]) -> bytes:
        key = encode(function)
        _functions[key] = function
        return key

    def backend_compile_and_load(
        backend: Any, module: Any, devices: Any, options: Any, *rest: Any
    ) -> Any:
        if _functions and is_remote(backend):
            module = _inspect(module, options)
        return compile_and_load(backend, module, devices, options, *rest)

    setattr(encode_and_keep, _INSTALLED, True)
    xla_client.encode_inspect_sharding_callback = encode_and_keep
    # The mark of the part that it wraps stays visible.
    backend_compile_and_load.__dict__.update(compile_and_load.__dict__)
    compiler.backend_compile_and_load = backend_compile_and_load


def _inspect(module: Any, options: Any) -> Any:
    """Calls the functions of the module's inspections; returns the module without them."""
    from jax._src.interpreters import mlir
    from jax._src.lib.mlir import ir, passmanager

    with module.context as context, ir.Location.unknown():
        if not _calls(ir, module):
            return module
        if not options.executable_build_options.use_shardy_partitioner:
            raise NotImplementedError(
                "jax.debug.inspect_array_sharding in a jit over remote devices needs the "
                "partitioner Shardy: set jax_use_shardy_partitioner, or look at .sharding of a "
                "result of the jit"
            )
        code = mlir.module_to_bytecode(module)
        copy = ir.Module.parse(code, context)
        for op in _calls(ir, copy):
            op.attributes["sdy.sharding_rule"] = _as_operand(ir, op)
        passmanager.PassManager.parse(_PIPELINE).run(copy.operation)
        meshes = _meshes(ir, copy)
        for op in _calls(ir, copy):
            key = ir.StringAttr(op.attributes["backend_config"]).value_bytes
            function = _functions.get(key)
            if function is None:
                raise NotImplementedError(
                    "the function of a jax.debug.inspect_array_sharding is gone; trace and lower "
                    "the program again"
                )
            function(_sharding(op, meshes))
        rest = ir.Module.parse(code, context)
        for op in _calls(ir, rest):
            op.results[0].replace_all_uses_with(op.operands[0])
            op.erase()
        return rest


def _calls(ir: Any, module: Any) -> list[Any]:
    found = []

    def visit(op: Any) -> Any:
        is_call = op.name == "stablehlo.custom_call"
        if is_call and ir.StringAttr(op.attributes["call_target_name"]).value == _TARGET:
            found.append(op)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return found


def _as_operand(ir: Any, op: Any) -> Any:
    """The rule that the result is sharded as the operand is; without one nothing is propagated."""
    sizes = ir.RankedTensorType(op.operands[0].type).shape
    names = [*"ijklmnopqrstuvwxyz", *(f"z_{k}" for k in range(1, len(sizes)))]  # as Shardy has them
    factors = names[: len(sizes)]
    side = f"([{', '.join(factors)}])"
    given = ", ".join(f"{name}={size}" for name, size in zip(factors, sizes))
    return ir.Attribute.parse(f"#sdy.op_sharding_rule<{side}->{side} {{{given}}}, custom>")


def _meshes(ir: Any, module: Any) -> dict[str, tuple[dict[str, int], list[int]]]:
    """{name: ({axis: size}, device numbers)}."""
    from jax._src.lib.mlir.dialects import sdy

    found = {}
    for op in module.body.operations:
        if op.operation.name == "sdy.mesh":
            mesh = sdy.MeshAttr(op.attributes["mesh"])
            axes = {axis.name: axis.size for axis in map(sdy.MeshAxisAttr, mesh.axes)}
            found[ir.StringAttr(op.attributes["sym_name"]).value] = axes, list(mesh.device_ids)
    return found


def _sharding(op: Any, meshes: dict[str, tuple[dict[str, int], list[int]]]) -> Any:
    """The HloSharding of the call's result."""
    from jax._src.lib.mlir import ir
    from jax._src.lib.mlir.dialects import sdy
    from jaxlib import xla_client

    if "sdy.sharding" not in op.attributes:
        return xla_client.HloSharding.replicate()
    (tensor,) = sdy.TensorShardingPerValueAttr(op.attributes["sdy.sharding"]).shardings
    tensor = sdy.TensorShardingAttr(tensor)
    name = ir.FlatSymbolRefAttr(tensor.mesh_or_ref).value
    axes, device_ids = meshes[name]

    def axis_and_part(attribute: Any) -> tuple[str, tuple[int, int] | None]:
        axis = sdy.AxisRefAttr(attribute)
        part = axis.sub_axis_info
        return axis.name, (part.pre_size, part.size) if part else None

    dimensions = [
        [axis_and_part(axis) for axis in sdy.DimensionShardingAttr(dimension).axes]
        for dimension in tensor.dimension_shardings
    ]
    return hlo_sharding(axes, device_ids, dimensions)
