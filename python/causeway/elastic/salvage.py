"""What is left of a tree of arrays after a loss, put together from the replicas that live."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from causeway.elastic import snapshot
from causeway.elastic.slices import answers, slice_to_devices


@dataclasses.dataclass(frozen=True)
class Salvaged:
    """`tree` has None where an array cannot be rebuilt; `lost` says why, by the leaf's path."""

    tree: Any
    lost: dict[str, str]

    @property
    def complete(self) -> bool:
        return not self.lost


def salvage(tree: Any, shardings: Any = None) -> Salvaged:
    """Arrays with the values of `tree`, on devices that live.

    Without `shardings` nothing moves: an array with a NamedSharding keeps its axes on the part of
    its mesh that is left, others keep one replica of each part. With `shardings` (one, or a tree
    of them) the arrays are moved there, by the runtime. Arrays that are whole stay as they are.
    """
    paths, structure = jax.tree.flatten_with_path(tree)
    leaves = [leaf for _, leaf in paths]
    dead = _dead_devices(leaves)
    found: list[jax.Array | None] = []
    lost: dict[str, str] = {}
    for (path, leaf), gone in zip(paths, dead, strict=True):
        rebuilt = leaf if not gone else _rebuild(leaf, gone)
        found.append(rebuilt)
        if rebuilt is None:
            lost[jax.tree_util.keystr(path)] = _why(leaf, gone)
    if shardings is not None:
        wanted = jax.tree.leaves(jax.tree.map(
            lambda target, part: jax.tree.map(lambda _: target, part), shardings, tree
        )) if not isinstance(shardings, jax.sharding.Sharding) else [shardings] * len(found)
        at = [index for index, leaf in enumerate(found) if leaf is not None]
        moved = snapshot.copy([found[i] for i in at], [wanted[i] for i in at])
        for index, leaf in zip(at, moved, strict=True):
            found[index] = leaf
    return Salvaged(jax.tree.unflatten(structure, found), lost)


def _dead_devices(leaves: list[jax.Array]) -> list[frozenset[jax.Device]]:
    """For each array the devices on which its shard is lost, asked slice by slice."""
    dead: list[set[jax.Device]] = [set() for _ in leaves]
    slices = slice_to_devices()
    for devices in slices.values():
        here = set(devices)
        shards = [
            [shard.data for shard in leaf.addressable_shards if shard.device in here]
            for leaf in leaves
        ]
        if answers(shards):
            continue  # one question says it for all arrays
        for gone, leaf, parts in zip(dead, leaves, shards, strict=True):
            if not answers(parts):
                gone.update(leaf.sharding.device_set & here)
    return [frozenset(gone) for gone in dead]


def _rebuild(array: jax.Array, gone: frozenset[jax.Device]) -> jax.Array | None:
    shards = {shard.device: shard for shard in array.addressable_shards}
    if isinstance(array.sharding, NamedSharding):
        mesh = _living_mesh(array.sharding, gone)
        if mesh is not None:
            parts = [shards[device].data for device in mesh.devices.flat]
            kind = array.sharding.memory_kind
            target = NamedSharding(mesh, array.sharding.spec, memory_kind=kind)
            return jax.make_array_from_single_device_arrays(array.shape, target, parts)
        return None
    if not array.sharding.is_fully_replicated:
        return None
    left = [device for device in shards if device not in gone]
    if not left:
        return None
    target = NamedSharding(Mesh(np.array(left), ("replica",)), P())
    return jax.make_array_from_single_device_arrays(
        array.shape, target, [shards[device].data for device in left]
    )


def _living_mesh(sharding: NamedSharding, gone: frozenset[jax.Device]) -> Mesh | None:
    """The largest part of the mesh without dead devices that still has every part of the array.

    Only axes over which the array is replicated may get shorter.
    """
    mesh = sharding.mesh
    used = {
        name
        for entry in sharding.spec
        if entry is not None
        for name in (entry if isinstance(entry, tuple) else (entry,))
    }
    replicated = [axis for axis, name in enumerate(mesh.axis_names) if name not in used]
    devices = np.array(mesh.devices)
    while True:
        dead = np.vectorize(lambda device: device in gone, otypes=[bool])(devices)
        if not dead.any():
            return Mesh(devices, mesh.axis_names) if devices.size else None
        keeps = {}
        for axis in replicated:
            others = tuple(a for a in range(devices.ndim) if a != axis)
            alive = np.flatnonzero(~dead.any(axis=others))
            if alive.size:
                keeps[axis] = alive
        if not keeps:
            return None
        axis = max(keeps, key=lambda a: keeps[a].size / devices.shape[a])
        devices = np.take(devices, keeps[axis], axis=axis)


def _why(array: jax.Array, gone: frozenset[jax.Device]) -> str:
    slices = sorted({device.slice_index for device in gone})
    names = ", ".join(map(str, slices))
    return (
        f"a part of it was only on what is lost (slice {names}), and there is no replica: "
        "restore it from a snapshot or a checkpoint"
    )
