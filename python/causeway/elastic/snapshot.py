"""Copies of a training state in the cluster's own memory. No byte passes through this process."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P
from pathwaysutils import reshard

from causeway.elastic import placement
from causeway.elastic.slices import SliceToDevices, answers


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What `take` made. `arrays` has the tree of the state; `specs` how its leaves were cut."""

    step: int
    arrays: Any
    specs: Any
    controller: Any

    def complete(self) -> bool:
        """Waits until the copy is made; False when it was not, or is lost since."""
        return all(restorable(leaf) for leaf in jax.tree.leaves(self.arrays))

    def restore(self, target: Mesh | Any) -> Any:
        """Fresh arrays on `target`: a mesh, cut as the state was, or a tree of shardings."""
        shardings = target
        if isinstance(target, Mesh):
            shardings = jax.tree.map(lambda spec: NamedSharding(target, spec), self.specs)
        return copy(self.arrays, shardings)


def take(
    step: int, state: Any, controller: Any, slices: SliceToDevices, memory_kind: str | None = None
) -> Snapshot:
    """Starts a copy of `state` (a tree of arrays on the devices of `slices`); does not wait.

    The state may be donated or deleted as soon as this returns.
    """
    leaves, tree = jax.tree.flatten(state)
    for leaf in leaves:
        if not isinstance(leaf, jax.Array):
            raise TypeError(
                f"a {type(leaf).__name__} in the state is no jax.Array: put it on devices, or keep "
                "it in snapshot_controller"
            )
    home = {device: index for index, devices in slices.items() for device in devices}
    used = {home.get(device) for leaf in leaves for device in leaf.sharding.device_set}
    if None in used:
        raise ValueError(
            f"the state lies on devices outside of the active slices {sorted(slices)}: set "
            "active_slice_indices to what the training uses"
        )
    groups = placement.holders(used, slices)
    targets = [
        placement.sharding(leaf.shape, leaf.dtype.itemsize, groups, turn, memory_kind)
        for turn, leaf in enumerate(leaves)
    ]
    specs = [_spec(leaf.sharding) for leaf in leaves]
    return Snapshot(
        step,
        jax.tree.unflatten(tree, copy(leaves, targets)),
        jax.tree.unflatten(tree, specs),
        controller,
    )


def copy(arrays: Any, shardings: Any) -> Any:
    """Fresh arrays, moved between devices by the runtime. Live replicas are enough as a source."""
    return reshard.reshard(arrays, shardings)


def restorable(array: jax.Array) -> bool:
    """Whether every part of `array` is left somewhere."""
    if answers(array):
        return True
    found: dict[str, bool] = {}
    for shard in array.addressable_shards:
        key = repr(shard.index)
        if not found.get(key):
            found[key] = answers(shard.data)
    return all(found.values())


def _spec(sharding: Sharding) -> P:
    return sharding.spec if isinstance(sharding, NamedSharding) else P()
