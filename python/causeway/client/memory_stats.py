"""Makes device.memory_stats() answer None for remote devices, as it does for local CPUs."""

from __future__ import annotations

import functools
from typing import Any

_INSTALLED = "_causeway_memory_stats"


def install() -> None:
    from jaxlib import xla_client

    original = xla_client.Device.memory_stats
    if hasattr(original, _INSTALLED):
        return

    @functools.wraps(original)
    def memory_stats(self: Any) -> Any:
        if str(getattr(self.client, "runtime_type", "")).startswith("proxy"):
            return None
        return original(self)

    setattr(memory_stats, _INSTALLED, True)
    xla_client.Device.memory_stats = memory_stats
