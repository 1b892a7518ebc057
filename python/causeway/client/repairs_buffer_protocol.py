"""The buffer protocol of remote arrays: memoryview(x), bytes(x), file.write(x) see a copy.

From Python 3.12 on, where a class can offer its buffer from Python. Before that it takes C.
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any

from causeway.client.repairs_common import is_remote_array

_INSTALLED = "_causeway_buffer_protocol"
_MINIMUM = (3, 12)


def install() -> None:
    from jax._src import array

    kind = array.ArrayImpl
    if sys.version_info < _MINIMUM:
        return  # the stock client refuses, which is what happens without this part
    original = kind.__buffer__
    if hasattr(original, _INSTALLED):
        return

    @functools.wraps(original)
    def buffer(self: Any, flags: int) -> memoryview:
        if not is_remote_array(self):
            return original(self, flags)
        return _copy(self, flags)

    setattr(buffer, _INSTALLED, True)
    kind.__buffer__ = buffer


def _copy(array: Any, flags: int) -> memoryview:
    import numpy as np

    if flags & inspect.BufferFlags.WRITABLE:  # type: ignore[attr-defined]
        raise BufferError("the buffer of a jax.Array is read-only; np.array(x) can be written to")
    if len(array.sharding.device_set) != 1:
        raise BufferError(
            "the buffer protocol is only defined for arrays on a single device; np.asarray(x) "
            "collects the shards"
        )
    if array.dtype.kind not in "?biufc" or array.dtype.isbuiltin != 1:
        name = {"bfloat16": "BF16"}.get(array.dtype.name, array.dtype.name.upper())
        raise BufferError(
            f"Buffers of type {name} are not supported by the Python buffer protocol."
        )
    return memoryview(np.asarray(array))
