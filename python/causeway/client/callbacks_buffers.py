"""jax.experimental.buffer_callback: the function fills host arrays, which become its results.

The stock form hands the function the devices' own memory. Here operands arrive as bytes, so they
are NumPy arrays already; results are arrays made for the call, and an operand that an output
aliases serves as both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from causeway.client.mlir_types import numpy_dtype

TARGET_PREFIX = "xla_buffer_python_"


@dataclasses.dataclass(frozen=True)
class Results:
    """What a call gives: (shape, dtype) of each output, and {output: operand} for aliases."""

    specs: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]
    aliases: dict[int, int]


class Buffer:
    """An operand or result, with the members of jax.experimental.buffer_callback.Buffer."""

    def __init__(self, value: np.ndarray[Any, Any], writeable: bool) -> None:
        self._value = value
        self.shape = value.shape
        self.ndim = value.ndim
        self.dtype = value.dtype
        self.writeable = writeable

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if dtype is not None and np.dtype(dtype) != self.dtype:
            if copy is False:
                raise ValueError(f"an array of {self.dtype} becomes {dtype} by copying only")
            return self._value.astype(dtype)
        return self._value.copy() if copy else self._value

    def __dlpack__(self, **arguments: Any) -> Any:
        return self._value.__dlpack__(**arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._value.__dlpack_device__()


class ExecutionContext:
    """The first argument of the function. There is no stream: it runs on the client's host."""

    @property
    def stage(self) -> Any:
        from jax.experimental import buffer_callback

        return buffer_callback.ExecutionStage.EXECUTE

    @property
    def stream(self) -> int:
        import jax

        raise jax.errors.JaxRuntimeError(
            "UNIMPLEMENTED: XLA FFI GPU context is not available: the function runs in the "
            "client's process, on arrays in the memory of its host"
        )


def adapt(function: Callable[..., Any], results: Results) -> Callable[..., Sequence[Any]]:
    """A function over buffers, as one that takes NumPy arrays and returns NumPy arrays."""

    def call(*operands: np.ndarray[Any, Any]) -> Sequence[np.ndarray[Any, Any]]:
        outputs = [
            operands[results.aliases[place]]
            if place in results.aliases
            else np.zeros(shape, dtype)  # what is not written stays defined
            for place, (shape, dtype) in enumerate(results.specs)
        ]
        function(
            ExecutionContext(),
            *(Buffer(operand, writeable=False) for operand in operands),
            *(Buffer(output, writeable=True) for output in outputs),
        )
        return outputs

    return call


def results_of(ir: Any, op: Any) -> Results:
    """Reads the types and aliases of a custom call. Needs an active MLIR context."""
    specs = []
    for result in op.results:
        kind = ir.RankedTensorType(result.type)
        specs.append((tuple(kind.shape), numpy_dtype(kind.element_type)))
    aliases = {}
    if "output_operand_aliases" in op.attributes:
        from jax._src.lib.mlir.dialects import hlo

        for entry in op.attributes["output_operand_aliases"]:
            alias = hlo.OutputOperandAlias(entry)
            output = alias.output_tuple_indices
            aliases[output[0] if output else 0] = alias.operand_index
    return Results(tuple(specs), aliases)
