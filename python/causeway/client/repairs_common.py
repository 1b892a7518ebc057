"""What the repairs share: telling remote from local, and this machine's CPU."""

from __future__ import annotations

from typing import Any


def is_remote(client: Any) -> bool:
    return str(getattr(client, "runtime_type", "")).startswith("proxy")


def is_remote_array(array: Any) -> bool:
    return is_remote(next(iter(array.sharding.device_set)).client)


def local_cpu() -> Any:
    """The first local CPU device, which the patch "local-cpu" provides."""
    from jax._src import xla_bridge

    return xla_bridge.local_devices(backend="cpu")[0]
