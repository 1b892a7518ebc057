"""Registers the backend "proxy" with JAX, unless someone else (pathwaysutils) already has."""

from __future__ import annotations

import os
from typing import Any

NAME = "proxy"


def install() -> None:
    from jax._src import xla_bridge

    if NAME not in xla_bridge._backend_factories:
        # Quiet, for a program that has left its cluster (connect() ended) and lets JAX choose among
        # all backends; JAX is loud by itself for a platform that the user names.
        xla_bridge.register_backend_factory(NAME, _make_client, priority=-1, fail_quietly=True)


def _make_client() -> Any:
    import jax
    from jax.extend.backend import ifrt_proxy

    target = jax.config.read("jax_backend_target")
    if not target:
        raise RuntimeError(
            "JAX_PLATFORMS names proxy, but JAX_BACKEND_TARGET is empty: set it to "
            "grpc://HOST:PORT of a cluster (causeway up prints it), or use causeway run"
        )
    options = ifrt_proxy.ClientConnectionOptions()
    seconds = os.environ.get("PATHWAYS_PROXY_CONNECTION_TIMEOUT_SECS")
    if seconds:
        options.connection_timeout_in_seconds = int(seconds)
    return ifrt_proxy.get_client(target, options)
