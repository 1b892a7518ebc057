"""What a program in host memory is, and the shards that it takes and gives.

A program has run(args) and close(). `args` has one list of shards an argument, (device, element
type, bytes, dims) each, with this worker's shards alone; so has the result, as (device, address,
size, owner, dims). Both may be called from any thread, and may take as long as the user likes.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from causeway.worker import dtypes, text

Shard = tuple[int, int, Any, tuple[int, ...]]
Part = tuple[int, int, int, Any, tuple[int, ...]]


class Program(Protocol):
    def run(self, args: Sequence[Sequence[Shard]]) -> list[list[Part]]: ...

    def close(self) -> None: ...


def part(device: int, array: np.ndarray) -> Part:
    """A result's shard. Numbers are copied: the user may go on to change what he returned."""
    dims = tuple(array.shape)
    if array.dtype == np.dtypes.StringDType():
        owner = np.frombuffer(text.encode(array), np.uint8)
    else:
        owner = np.array(array, order="C", copy=True)
    return device, owner.ctypes.data, owner.nbytes, owner, dims


def view(shard: Shard) -> np.ndarray:
    """An argument's shard; numbers without a copy and not to be written to."""
    _, number, block, dims = shard
    if number == dtypes.TEXT:
        return text.decode(block, dims)
    dtype = dtypes.of(number)
    if 0 in dims:
        return np.empty(dims, dtype)
    return np.frombuffer(block, dtype).reshape(dims)
