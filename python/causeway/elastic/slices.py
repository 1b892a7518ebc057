"""Which slices there are and which of them answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from pathwaysutils.elastic.elastic import get_slice_to_devices, is_error_due_to_slice_down

SliceToDevices = Mapping[int, Sequence[jax.Device]]


def slice_to_devices(devices: Sequence[jax.Device] | None = None) -> dict[int, list[jax.Device]]:
    """Devices by `slice_index`, in order of the index."""
    found = get_slice_to_devices(tuple(jax.devices() if devices is None else devices))
    return {index: list(found[index]) for index in sorted(found)}


def is_slice_loss(error: BaseException) -> bool:
    """Whether `error` is what JAX throws when a slice is lost."""
    if not isinstance(error, jax.errors.JaxRuntimeError):
        return False
    return is_error_due_to_slice_down(error, log_traceback=False)


def answers(arrays: Any) -> bool:
    """Whether every array of the tree has its value now; False when a slice under one is lost.

    Any other error is thrown. Costs the head's answer, and moves no data.
    """
    return _arrive(jax.tree.map(_anew, arrays))


def active_slices(slices: SliceToDevices) -> frozenset[int]:
    """The slices whose every device takes a value. Runs and compiles no program."""
    probes = {
        index: jax.device_put(
            np.zeros((), np.int8), NamedSharding(Mesh(np.array(devices), ("probe",)), P())
        )
        for index, devices in slices.items()
    }
    return frozenset(index for index, probe in probes.items() if _arrive(probe))


def _arrive(arrays: Any) -> bool:
    try:
        jax.block_until_ready(arrays)
    except jax.errors.JaxRuntimeError as error:
        if not is_slice_loss(error):
            raise
        return False
    return True


def _anew(array: Any) -> Any:
    """The same array under another handle: the client keeps the first answer for each handle, and
    would not hear of a loss since."""
    if not isinstance(array, jax.Array):
        return array
    parts = [shard.data for shard in array.addressable_shards]
    return jax.make_array_from_single_device_arrays(array.shape, array.sharding, parts)
