"""Where a snapshot lies: in other slices than what it is a copy of, spread over their devices."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from causeway.elastic.slices import SliceToDevices

_COPY, _PART = "copy", "part"
# Smaller leaves lie on one device of each group: cutting them up would cost more than it spreads.
_WHOLE_BYTES_MAX = 16 << 10

Groups = list[list[jax.Device]]


def holders(used: Set[int], slices: SliceToDevices) -> Groups:
    """Groups of devices; each group is to hold one copy of a state on the slices `used`.

    Whatever single slice is lost, the state or a copy of it is left. A state that leaves slices
    free gets one copy, there. One that uses all gets two, in different slices. On a cluster of one
    slice the copy lies beside the state and survives a failed step, but not the slice.
    """
    free = [index for index in slices if index not in used]
    if free:
        return [[device for index in free for device in slices[index]]]
    ordered = list(slices)
    if len(ordered) == 1:
        return [list(slices[ordered[0]])]
    half = len(ordered) // 2
    groups = [ordered[:half], ordered[half : 2 * half]]
    return [[device for index in group for device in slices[index]] for group in groups]


def sharding(
    shape: Sequence[int], itemsize: int, groups: Groups, turn: int, memory_kind: str | None
) -> NamedSharding:
    """One copy of an array in every group, cut up as far as its dimensions divide.

    `turn` chooses the devices of arrays that do not use all of a group, so that such arrays spread.
    """
    width = min(len(group) for group in groups)
    dimension, parts = -1, 1
    if math.prod(shape) * itemsize > _WHOLE_BYTES_MAX:
        for index, size in enumerate(shape):
            common = math.gcd(size, width)
            if common > parts:
                dimension, parts = index, common
    start = turn * parts % width
    chosen = [
        [group[(start + offset) % width] for offset in range(parts)] for group in groups
    ]
    mesh = Mesh(np.array(chosen), (_COPY, _PART))
    spec = P() if dimension < 0 else P(*([None] * dimension), _PART)
    return NamedSharding(mesh, spec, memory_kind=memory_kind)
