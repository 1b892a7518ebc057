"""Copies between the cluster and local devices, which the client's C++ refuses: through NumPy."""

from __future__ import annotations

from typing import Any

_INSTALLED = "_causeway_copies"


def install() -> None:
    from jaxlib import xla_client

    original = xla_client.batched_copy_array_to_devices_with_sharding
    if hasattr(original, _INSTALLED):
        return

    # Not functools.wraps: a function of the C++ module has no name that Python would take.
    def batched_copy(arrays: Any, devices: Any, shardings: Any, semantics: Any) -> Any:
        rows = list(zip(arrays, devices, shardings, semantics))
        crossing = [_client(row[0].sharding.device_set) is not _client(row[1]) for row in rows]
        if not any(crossing):
            return original(arrays, devices, shardings, semantics)
        within = [row for row, crosses in zip(rows, crossing) if not crosses]
        copied = iter(original(*map(list, zip(*within))) if within else ())
        return [
            _through_numpy(row[0], row[2]) if crosses else next(copied)
            for row, crosses in zip(rows, crossing)
        ]

    setattr(batched_copy, _INSTALLED, True)
    xla_client.batched_copy_array_to_devices_with_sharding = batched_copy


def _client(devices: Any) -> Any:
    return next(iter(devices)).client


def _through_numpy(array: Any, sharding: Any) -> Any:
    import jax
    import numpy as np

    return jax.device_put(np.asarray(array), sharding)
