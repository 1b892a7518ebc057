"""`causeway.connect()`: a cluster for a notebook, for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import dataclasses
import html
import os
from collections.abc import Iterator
from typing import Any

from causeway.cluster import environment, launcher, paths, state
from causeway.cluster.options import DEFAULT_NAME, ClusterOptions


class Connection:
    """A view of the cluster that JAX now uses. Valid inside the `with` block."""

    def __init__(self, target: str, devices: list[Any], owned: bool) -> None:
        self.target = target
        self.devices = devices
        self.owned = owned  # started for this block, and ended with it

    @property
    def slices(self) -> dict[int, list[Any]]:
        """Devices by the slice they belong to; all in slice 0 when slices are not announced."""
        found: dict[int, list[Any]] = {}
        for device in self.devices:
            found.setdefault(getattr(device, "slice_index", 0) or 0, []).append(device)
        return dict(sorted(found.items()))

    def __repr__(self) -> str:
        kind = self.devices[0].device_kind if self.devices else "no"
        return (
            f"<causeway {self.target}: {len(self.devices)} {kind} devices in "
            f"{len(self.slices)} slices>"
        )

    def __rich__(self) -> Any:
        from rich.table import Table

        table = Table(title=f"causeway {self.target}", title_justify="left")
        table.add_column("slice", justify="right")
        table.add_column("devices")
        for index, devices in self.slices.items():
            table.add_row(str(index), " ".join(str(device.id) for device in devices))
        return table

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>slice {index}</th>"
            + "".join(
                f"<td title='{html.escape(str(device), quote=True)}'>{device.id}</td>"
                for device in devices
            )
            + "</tr>"
            for index, devices in self.slices.items()
        )
        return f"<table><caption>causeway {html.escape(self.target)}</caption>{rows}</table>"


@contextlib.contextmanager
def connect(
    target: str | None = None,
    *,
    name: str | None = None,
    slices: int | None = None,
    hosts_per_slice: int | None = None,
    devices_per_host: int | None = None,
    platform: str | None = None,
    timeout_seconds: float = 120.0,
) -> Iterator[Connection]:
    """Makes JAX in this process use a cluster; afterwards everything is as it was.

    `target` is a cluster anywhere (grpc://HOST:PORT). Without it the cluster `name` of this machine
    is used, or the one that runs; when none runs, or a shape is asked for, one is started on free
    ports and ended with the block. Arrays do not outlive the block: JAX's backends are
    cleared at both ends, also arrays made before it are lost.
    """
    shape = {
        key: value
        for key, value in {
            "slices": slices,
            "hosts_per_slice": hosts_per_slice,
            "devices_per_host": devices_per_host,
            "platform": platform,
        }.items()
        if value is not None
    }
    if target is not None and (shape or name):
        raise ValueError("connect(target) takes the cluster as it is: leave out name and shape")
    with contextlib.ExitStack() as stack:
        variables, owned = _cluster(stack, target, name, shape, timeout_seconds)
        stack.enter_context(_environment(variables))
        stack.enter_context(_jax_config(variables))
        import jax

        yield Connection(variables["JAX_BACKEND_TARGET"], list(jax.devices()), owned)


def _cluster(
    stack: contextlib.ExitStack,
    target: str | None,
    name: str | None,
    shape: dict[str, Any],
    timeout_seconds: float,
) -> tuple[dict[str, str], bool]:
    """The variables for a client, and whether the cluster was started for this block."""
    if target is not None:
        return {
            "JAX_PLATFORMS": "proxy",
            "JAX_BACKEND_TARGET": target,
            "IFRT_PROXY_USE_INSECURE_GRPC_CREDENTIALS": "true",
        }, False
    current = launcher.find_usable(name or DEFAULT_NAME, timeout_seconds)
    if current is not None and (name or not shape):
        return environment.client_variables(current), False
    own = name or f"connect-{os.getpid()}"
    options = dataclasses.replace(ClusterOptions(name=own), **shape).on_free_ports()
    current, started = launcher.start(options, timeout_seconds, owner_pid=os.getpid())
    if started:
        stack.callback(state.remove, paths.cluster_dir(own), logs=True)
        stack.callback(launcher.stop, own)
    return environment.client_variables(current), started


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    wanted = dict(variables)
    wanted.setdefault("IFRT_PROXY_GRPC_MAX_ONGOING_HOST_BUFFER_STORES", environment.DEFAULT_UPLOADS)
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextlib.contextmanager
def _jax_config(variables: dict[str, str]) -> Iterator[None]:
    import jax
    from jax.extend import backend

    from causeway import client

    before = {
        "jax_platforms": jax.config.jax_platforms,
        "jax_backend_target": jax.config.read("jax_backend_target"),
    }
    backend.clear_backends()
    jax.config.update("jax_platforms", variables["JAX_PLATFORMS"])
    jax.config.update("jax_backend_target", variables["JAX_BACKEND_TARGET"])
    try:
        # JAX looks for plugins once a process, which may have been for another platform.
        client.install()
        yield
    finally:
        _forget_backends()
        for key, value in before.items():
            jax.config.update(key, value)


def _forget_backends() -> None:
    from jax._src import xla_bridge
    from jax.extend import backend

    try:
        backend.clear_backends()
    except Exception:
        # Effects of a cluster that is gone cannot finish; the second call has none to wait for.
        xla_bridge._clear_backends()
        backend.clear_backends()
