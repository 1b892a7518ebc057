"""Shardings as Shardy writes them, by mesh axes, in the form that XLA's partitioner reports."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

# An axis of the mesh, or a part of one: (name, (size before it, its size)).
Axis = tuple[str, tuple[int, int] | None]
# The axes that split each dimension of an array, major first.
Dimensions = list[list[Axis]]


def hlo_sharding(axes: dict[str, int], device_ids: list[int], dimensions: Dimensions) -> Any:
    """The HloSharding of an array on a mesh with these axes, in their order.

    `device_ids` are the mesh's devices where they are not 0, 1, 2, ...
    """
    from jaxlib import xla_client

    # Each axis falls into factors, cut wherever a part of it begins or ends.
    cuts = {name: {1, size} for name, size in axes.items()}
    for name, part in (entry for dimension in dimensions for entry in dimension):
        if part:
            cuts[name] |= {part[0], part[0] * part[1]}
    factors: list[tuple[str, int, int]] = []  # (axis, size before, size), in the mesh's order
    for name in axes:
        edges = sorted(cuts[name])
        factors += [(name, low, high // low) for low, high in itertools.pairwise(edges)]
    order: list[int] = []
    tiles: list[int] = []
    for dimension in dimensions:
        first = len(order)
        for name, part in dimension:
            low, size = part or (1, axes[name])
            order += [
                place
                for place, (axis, before, _) in enumerate(factors)
                if axis == name and low <= before < low * size
            ]
        tiles.append(int(np.prod([factors[place][2] for place in order[first:]], dtype=np.int64)))
    if not order:
        return xla_client.HloSharding.replicate()
    order += [place for place in range(len(factors)) if place not in order]
    count = int(np.prod(list(axes.values()), dtype=np.int64))
    devices = np.array(device_ids or range(count))
    devices = devices.reshape([size for *_, size in factors]).transpose(order).reshape(-1)
    copies = count // int(np.prod(tiles, dtype=np.int64))
    proto = xla_client.OpSharding()
    proto.type = xla_client.OpSharding.Type.OTHER
    proto.tile_assignment_dimensions = tiles + [copies] * (copies > 1)
    proto.tile_assignment_devices = devices.tolist()
    proto.replicate_on_last_tile_dim = copies > 1
    return xla_client.HloSharding.from_proto(proto)
