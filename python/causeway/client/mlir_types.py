"""NumPy's names of MLIR's element types."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np


def numpy_dtype(element_type: Any) -> np.dtype[Any]:
    """Raises KeyError for a type that JAX has no arrays of."""
    return _by_spelling()[str(element_type)]


@functools.cache
def _by_spelling() -> dict[str, np.dtype[Any]]:
    from jax._src.interpreters import mlir
    from jax._src.lib.mlir import ir

    found: dict[str, np.dtype[Any]] = {}
    with mlir.make_ir_context(), ir.Location.unknown():
        for dtype, make in mlir._dtype_to_ir_type.items():
            found.setdefault(str(make()), dtype)
    found["i1"] = np.dtype(bool)
    return found
