"""The systems that a client can be measured on: a cluster, the null server, plain JAX."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import processes

ROOT = Path(__file__).resolve().parent.parent.parent
_START_SECONDS = 60.0
_SHARED_MEMORY = "CAUSEWAY_SHARED_MEMORY"


@dataclasses.dataclass(frozen=True)
class System:
    """Where a client process finds its devices. `pids` are the servers behind it."""

    name: str
    environment: dict[str, str]
    pids: tuple[int, ...] = ()
    # More than one: as many client processes, each with its own rank (multi-controller JAX).
    clients: int = 1
    ops_url: str = ""
    cluster: str = ""  # the name that `causeway` knows it by


def _clean_environment() -> dict[str, str]:
    dropped = ("JAX_", "IFRT_PROXY_", "XLA_FLAGS", "CAUSEWAY_CLIENT_PATCHES")
    return {key: value for key, value in os.environ.items() if not key.startswith(dropped)}


def _proxy_environment(target: str, patches: str | None) -> dict[str, str]:
    """A client with the client package, as `causeway run` would start it."""
    environment = _clean_environment()
    old = environment.get("PYTHONPATH")
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), *([old] if old else [])]),
        "JAX_PLATFORMS": "proxy",
        "JAX_BACKEND_TARGET": target,
        "IFRT_PROXY_USE_INSECURE_GRPC_CREDENTIALS": "true",
        "IFRT_PROXY_GRPC_MAX_ONGOING_HOST_BUFFER_STORES": "64",
    }
    if patches is not None:
        environment["CAUSEWAY_CLIENT_PATCHES"] = patches
    return environment


def local(devices: int = 1, name: str = "local JAX") -> System:
    """JAX on this machine's processor, in the client itself."""
    environment = _clean_environment()
    environment["JAX_PLATFORMS"] = "cpu"
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    return System(name, environment)


def multi_controller(processes_count: int, devices_per_process: int = 1) -> System:
    """One JAX process a host, joined by jax.distributed and gloo: every one runs the program."""
    environment = _clean_environment()
    environment["JAX_PLATFORMS"] = "cpu"
    environment["JAX_CPU_COLLECTIVES_IMPLEMENTATION"] = "gloo"
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices_per_process}"
    return System("multi-controller JAX", environment, clients=processes_count)


def proxied(
    name: str, target: str, pids: tuple[int, ...], patches: str | None = None, ops_url: str = ""
) -> System:
    """Whatever answers at `target`."""
    return System(name, _proxy_environment(target, patches), pids, ops_url=ops_url)


@contextlib.contextmanager
def null_server(devices: int = 1, patches: str | None = None) -> Iterator[System]:
    """A server that answers and computes nothing: what the stock client costs by itself."""
    binary = ROOT / "build" / "release" / "bench" / "bench_null_server"
    if not binary.exists():
        raise FileNotFoundError(f"{binary} is not built: run ./causeway build")
    child = subprocess.Popen(
        [str(binary), "0", str(devices)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        port = json.loads(child.stdout.readline())["port"]
        yield proxied("null server", f"grpc://127.0.0.1:{port}", (child.pid,), patches)
    finally:
        processes.end(child)


@contextlib.contextmanager
def causeway(
    slices: int = 1,
    hosts_per_slice: int = 1,
    devices_per_host: int = 1,
    patches: str | None = None,
    compile_cache: str = "off",
    spares: int = 0,
    shared_memory: bool = True,
) -> Iterator[System]:
    """A real cluster on free ports, with the client package as users get it.

    Without `shared_memory` its processes talk as if each had a machine of its own.
    """
    from causeway.cluster import launcher, paths, state
    from causeway.cluster.options import ClusterOptions

    name = f"bench-{os.getpid()}-{slices}x{hosts_per_slice}x{devices_per_host}"
    if not shared_memory:
        name += "-apart"
    options = ClusterOptions(
        name=name,
        slices=slices,
        hosts_per_slice=hosts_per_slice,
        devices_per_host=devices_per_host,
        compile_cache=compile_cache,
        spares=spares,
    ).on_free_ports()
    if not shared_memory:
        os.environ[_SHARED_MEMORY] = "off"
    try:
        patience = max(_START_SECONDS, 15.0 * slices * hosts_per_slice)
        current, _ = launcher.start(options, patience, owner_pid=os.getpid())
    finally:
        os.environ.pop(_SHARED_MEMORY, None)
    try:
        environment = _proxy_environment(current.target, patches)
        pids = tuple(record.pid for record in current.processes if record.pid)
        label = "Causeway" if shared_memory else "Causeway, hosts apart"
        yield System(label, environment, pids, ops_url=current.ops_url, cluster=name)
    finally:
        launcher.stop(name)
        state.remove(paths.cluster_dir(name), logs=True)


def counters(system: System) -> dict[str, int]:
    """What the cluster's head has counted."""
    return status(system)["counters"]


def status(system: System) -> dict[str, Any]:
    from causeway.cluster import head_api

    return head_api.status(system.ops_url)


def renamed(system: System, name: str) -> System:
    return dataclasses.replace(system, name=name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
