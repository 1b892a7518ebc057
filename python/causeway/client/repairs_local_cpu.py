"""A real local CPU backend beside the cluster: callbacks put their operands there.

`jax.devices("cpu")` is then this machine's CPU, as on a host with a GPU. The default backend stays
the cluster, and the configuration that programs can read stays as the user wrote it.
"""

from __future__ import annotations

from typing import Any

from causeway.client.repairs_common import is_remote, on_new_backend


def install() -> None:
    import jax
    from jax._src import xla_bridge

    def add(backend: Any) -> None:
        # Runs inside backends(), its lock held; platforms that the user named come by themselves.
        if not is_remote(backend) or "cpu" in (jax.config.jax_platforms or "").split(","):
            return
        if "cpu" not in xla_bridge._backends:
            xla_bridge._backends["cpu"] = xla_bridge._backend_factories["cpu"].factory()

    on_new_backend(add)
