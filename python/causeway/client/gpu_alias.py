"""Makes the proxy's backend answer to the name of its devices' platform too."""

from __future__ import annotations

from typing import Any

from causeway.client.repairs_common import on_new_backend

_PLATFORMS = ("cuda", "rocm", "tpu")  # never "cpu": that name means this machine's own


def install() -> None:
    from jax._src import xla_bridge

    def alias(backend: Any) -> None:
        # Runs inside backends(), whose lock is held.
        remote = str(getattr(backend, "runtime_type", "")).startswith("proxy")
        if remote and backend.platform in _PLATFORMS:
            xla_bridge._backends.setdefault(backend.platform, backend)

    on_new_backend(alias)
