"""Copies NumPy arrays whose strides the wire cannot carry: reversed and broadcast views."""

from __future__ import annotations

import functools
from typing import Any

_INSTALLED = "_causeway_strides"


def install() -> None:
    from jaxlib import xla_client

    original = xla_client.batched_device_put
    if hasattr(original, _INSTALLED):
        return

    # The C++ path of jit needs nothing: refused by the client, it falls back to this function.
    @functools.wraps(original)
    def batched_device_put(
        aval: Any, sharding: Any, shards: Any, devices: Any, *rest: Any, **named: Any
    ) -> Any:
        shards = [_forward(shard) for shard in shards]
        return original(aval, sharding, shards, devices, *rest, **named)

    setattr(batched_device_put, _INSTALLED, True)
    xla_client.batched_device_put = batched_device_put


def _forward(value: Any) -> Any:
    import numpy as np

    if isinstance(value, np.ndarray) and value.ndim and min(value.strides) <= 0:
        # Subclasses such as memmap are plain arrays from here on; the shape stays.
        return np.ascontiguousarray(value).reshape(value.shape)
    return value
