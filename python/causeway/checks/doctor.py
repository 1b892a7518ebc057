"""What can keep a cluster from working on this machine, each finding with its remedy."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from causeway.client import shared_memory as client_memory
from causeway.cluster import head_api, launcher, paths, state
from causeway.cluster.errors import ClusterError
from causeway.cluster.options import ClusterOptions

OK, WARNING, PROBLEM = "ok", "warning", "problem"
_JAX = ("0.10.2", "0.10.2")  # oldest and newest version the tests run with


@dataclasses.dataclass(frozen=True)
class Finding:
    check: str
    level: str
    text: str
    remedy: str = ""


def examine() -> list[Finding]:
    """All findings. Starts nothing and changes nothing."""
    checks: list[Callable[[], Finding]] = [
        _python,
        lambda: package("jax"),
        lambda: package("jaxlib"),
        _head_program,
        _worker_core,
        _state_folder,
        _memory,
        _shared_memory,
        _ports,
        _clusters,
        _client_environment,
    ]
    return [check() for check in checks]


def _python() -> Finding:
    # An older Python would not have got here: the package does not even parse there.
    return Finding("python", OK, f"{sys.version.split()[0]} at {sys.executable}")


def package(name: str) -> Finding:
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, PROBLEM, "not installed", f"pip install {name}=={_JAX[1]}")
    if _JAX[0] <= found <= _JAX[1]:
        return Finding(name, OK, found)
    return Finding(
        name, WARNING, f"{found} is not among the tested versions", f"pip install {name}=={_JAX[1]}"
    )


def _head_program() -> Finding:
    try:
        return Finding("head", OK, str(paths.head_binary()))
    except ClusterError as error:
        return Finding("head", PROBLEM, str(error), "./causeway build")


def _worker_core() -> Finding:
    if os.environ.get("CAUSEWAY_WORKER_COMMAND"):
        return Finding("worker", OK, "CAUSEWAY_WORKER_COMMAND is set")
    native = paths.PACKAGE / "_native"
    libraries = sorted(native.glob("*.so")) if native.is_dir() else []
    if importlib.util.find_spec("causeway.worker") and libraries:
        return Finding("worker", OK, str(libraries[0]))
    return Finding("worker", PROBLEM, f"no C++ core in {native}", "./causeway build")


def _state_folder() -> Finding:
    root = paths.state_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        writable = os.access(root, os.W_OK)
    except OSError:
        writable = False
    if writable:
        return Finding("state folder", OK, str(root))
    return Finding(
        "state folder", PROBLEM, f"{root} is not writable", "set CAUSEWAY_STATE_DIR to one that is"
    )


def _memory() -> Finding:
    disk = shutil.disk_usage(paths.state_root() if paths.state_root().exists() else "/")
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    text = (
        f"{pages / 2**30:.1f} GiB of memory free, {disk.free / 2**30:.1f} GiB of disk, "
        f"{os.cpu_count()} cores"
    )
    if pages < 2**30:
        return Finding("machine", WARNING, text, "a worker takes about 250 MiB: use few workers")
    return Finding("machine", OK, text)


def _shared_memory() -> Finding:
    try:
        free = shutil.disk_usage(client_memory.ROOT).free
        mounts = Path("/proc/self/mounts").read_text(errors="replace")
    except OSError:
        free, mounts = 0, ""
    return shared_memory(mounts, free)


def shared_memory(mounts: str, free: int) -> Finding:
    """What the lines of /proc/self/mounts say of /dev/shm, which has `free` bytes left."""
    check = "shared memory"
    options: list[str] | None = None
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[1] == str(client_memory.ROOT):
            options = fields[3].split(",")  # the last one hides the others
    room = f"{client_memory.ROOT} has {free / 2**30:.1f} GiB free"
    if options is None or free < client_memory.FREE_BYTES_MIN:
        return Finding(
            check,
            WARNING,
            f"{room}: large arrays take the network",
            f"give {client_memory.ROOT} 2 GiB or more (of a container: --shm-size)",
        )
    huge = next((one for one in options if one.startswith("huge=")), "huge=never")
    if huge in ("huge=always", "huge=within_size"):
        return Finding(check, OK, f"{room}, in huge pages")
    return Finding(
        check,
        WARNING,
        f"{room}, in small pages: new memory there costs several times a copy",
        f"as root: mount -o remount,huge=within_size {client_memory.ROOT}",
    )


def _ports() -> Finding:
    options = ClusterOptions()
    wanted = [options.proxy_port, options.server_port, options.ops_port, options.worker_port]
    if state.running(options.name):
        return Finding("ports", OK, "in use by the running cluster")
    taken = [str(port) for port in wanted if launcher.port_holder(options.host, port)]
    if not taken:
        return Finding("ports", OK, f"{', '.join(map(str, wanted))} are free")
    return Finding(
        "ports", WARNING, f"{', '.join(taken)} taken", "give other ports to causeway up, or 0"
    )


def _clusters() -> Finding:
    names = state.all_names()
    broken, lines = False, []
    for name in names:
        current = state.running(name)
        if current is None:
            broken = True
            lines.append(f"{name}: its supervisor is gone")
            continue
        try:
            alive = len(head_api.alive_workers(head_api.status(current.ops_url)))
        except head_api.HeadUnreachable:
            alive = 0
        whole = alive == current.options.workers and current.phase == "running"
        broken |= not whole
        lines.append(f"{name}: {current.phase}, {alive} of {current.options.workers} workers")
    text = "; ".join(lines) or "none"
    if broken:
        return Finding("clusters", WARNING, text, "causeway status; causeway down --all")
    return Finding("clusters", OK, text)


def _client_environment() -> Finding:
    target = os.environ.get("JAX_BACKEND_TARGET", "")
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if "proxy" not in platforms.split(","):
        return Finding("environment", OK, "this shell's JAX does not point at a cluster")
    if not target.startswith("grpc://"):
        return Finding(
            "environment",
            PROBLEM,
            f"JAX_PLATFORMS={platforms}, JAX_BACKEND_TARGET={target!r}",
            "paste what causeway up prints",
        )
    plain = os.environ.get("IFRT_PROXY_USE_INSECURE_GRPC_CREDENTIALS", "").lower()
    if plain not in ("true", "1"):
        return Finding(
            "environment",
            WARNING,
            "IFRT_PROXY_USE_INSECURE_GRPC_CREDENTIALS is not true",
            "set it, unless the causeway package is on this program's path (it sets it itself)",
        )
    return Finding("environment", OK, f"{platforms} at {target}")
