"""Shardings by mesh axes against JAX's own translation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P

from causeway.client.hlo_shardings import hlo_sharding

AXES = {"x": 4, "y": 2, "z": 3}


@pytest.mark.parametrize(
    "spec",
    [
        P(),
        P("x"),
        P(None, "z"),
        P("z", "x"),
        P(("y", "x"), None, "z"),
        P(("z", "y", "x")),
        *(P(*names) for names in itertools.permutations("xyz")),
    ],
    ids=str,
)
def test_whole_axes(spec: P) -> None:
    mesh = AbstractMesh(tuple(AXES.values()), tuple(AXES))
    dimensions = [
        [(name, None) for name in ((entry,) if isinstance(entry, str) else entry or ())]
        for entry in (*spec, None, None)[:3]
    ]
    expected = NamedSharding(mesh, spec)._to_xla_hlo_sharding(3)
    assert hlo_sharding(AXES, [], dimensions) == expected


def test_parts_of_axes() -> None:
    # x = 4 as two parts of 2: the major one on the rows, the minor one on the columns.
    found = hlo_sharding({"x": 4, "y": 2}, [], [[("x", (1, 2))], [("x", (2, 2)), ("y", None)]])
    assert found.tile_assignment_dimensions() == [2, 4]
    assert found.tile_assignment_devices() == list(range(8))
    swapped = hlo_sharding({"x": 4, "y": 2}, [], [[("x", (2, 2))], [("x", (1, 2))]])
    devices = np.arange(8).reshape(2, 2, 2).transpose(1, 0, 2).reshape(-1)
    assert swapped.tile_assignment_devices() == devices.tolist()
    assert swapped.replicate_on_last_tile_dim()


def test_devices_in_another_order() -> None:
    found = hlo_sharding({"x": 4}, [3, 1, 0, 2], [[("x", None)]])
    assert found.tile_assignment_devices() == [3, 1, 0, 2]
