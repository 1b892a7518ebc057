"""Starts a cluster and waits for it, and ends one: what `up`, `down`, `run` and connect() share."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from causeway.cluster import environment, head_api, paths, processes, state
from causeway.cluster.errors import ClusterError, ExitCode
from causeway.cluster.options import ClusterOptions
from causeway.cluster.state import ClusterState
from causeway.supervisor import control_socket

# A worker that ended this often before the cluster was first complete will not make it.
_EARLY_ENDS_MAX = 3
DOWN_SECONDS = 20.0  # more than the supervisor's own grace


def start(
    options: ClusterOptions, timeout_seconds: float, owner_pid: int | None = None
) -> tuple[ClusterState, bool]:
    """Makes the cluster run with all its workers; False beside it when it already ran.

    With `owner_pid` the cluster ends by itself when that process does.
    Throws ClusterError with one line of reason, after ending whatever had been started.
    """
    folder = paths.cluster_dir(options.name)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _only_one_starter(folder, timeout_seconds):
        state.clean_stale(options.name)
        existing = state.running(options.name)
        if existing:
            _refuse_other_shape(existing, options)
            return existing, False
        _refuse_taken_ports(options)
        supervisor = _spawn(folder, options, owner_pid)
        try:
            return _wait_complete(folder, options, supervisor, timeout_seconds), True
        except BaseException:
            stop(options.name)
            _end_quietly(supervisor)
            raise


def find_usable(name: str, timeout_seconds: float) -> ClusterState | None:
    """The running cluster of that name, waiting for one that is about to run; None without one.

    Throws ClusterError for one that cannot serve: a client of it would only hang.
    """
    folder = paths.cluster_dir(name)
    state.clean_stale(name)
    current = state.running(name)
    if current and current.phase == "starting":
        with _only_one_starter(folder, timeout_seconds):
            current = state.running(name)
    if current and current.phase != "running":
        why = f" ({current.reason})" if current.reason else ""
        raise ClusterError(
            f"cluster {name!r} is {current.phase}{why}. Run: causeway down{_name_flag(name)}",
            ExitCode.DEGRADED,
        )
    return current


def stop(name: str) -> ClusterState | None:
    """Ends a cluster within a bound; returns what ran, or None when nothing did."""
    folder = paths.cluster_dir(name)
    found = state.read(folder)
    if found is None:
        return None
    if found.is_alive():
        with contextlib.suppress(control_socket.SupervisorUnreachable):
            control_socket.call(folder, {"command": "down"}, timeout_seconds=5.0)
        gone = processes.wait_until(lambda: not found.is_alive(), DOWN_SECONDS)
        if not gone:
            processes.end([(found.pid, found.started)], grace_seconds=2.0)
    state.clean_stale(name)
    return found


def first_failure(current: ClusterState) -> tuple[str, ExitCode] | None:
    """Why this cluster will not become complete, or None while it may."""
    if current.phase == "failed":
        head = current.process("head")
        code = head.final_code if head and head.final_code else ExitCode.START_FAILED
        return current.reason, ExitCode(code)
    for record in current.processes:
        name = record.role.replace("-", " ")
        if record.final_code:
            return f"{name} cannot start: {record.reason}", ExitCode(record.final_code)
        if record.restarts > _EARLY_ENDS_MAX:
            return f"{name} cannot start: {record.reason}", ExitCode.START_FAILED
    return None


def worker_pids(current: ClusterState, workers: set[int]) -> set[int]:
    """Of the processes that fill these places now; empty while the head does not answer."""
    try:
        entries = head_api.status(current.ops_url)["workers"]
    except head_api.HeadUnreachable:
        return set()
    return {entry["pid"] for entry in entries if entry["id"] in workers and entry["alive"]}


def waiting_spares(current: ClusterState) -> int:
    try:
        return int(head_api.status(current.ops_url)["gauges"].get("spares", 0))
    except head_api.HeadUnreachable:
        return 0


def wait_workers(current: ClusterState, workers: set[int], timeout_seconds: float) -> bool:
    """Waits until the head calls these workers alive."""
    return processes.wait_until(
        lambda: workers <= alive_workers(current), timeout_seconds, interval=0.05
    )


def alive_workers(current: ClusterState) -> set[int]:
    try:
        return head_api.alive_workers(head_api.status(current.ops_url))
    except head_api.HeadUnreachable:
        return set()


def port_holder(host: str, port: int) -> str | None:
    """Why `port` cannot be listened on, or None when it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return None


# ---------------------------------------------------------------- steps of start


@contextlib.contextmanager
def _only_one_starter(folder: Path, timeout_seconds: float) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:

        def taken() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        if not processes.wait_until(taken, timeout_seconds):
            raise ClusterError(
                f"another command has been starting cluster {folder.name!r} for "
                f"{timeout_seconds:.0f} s: wait for it, or end it",
                ExitCode.TIMEOUT,
            )
        yield


def _refuse_other_shape(existing: ClusterState, options: ClusterOptions) -> None:
    if existing.phase == "failed":
        raise ClusterError(
            f"cluster {options.name!r} is broken: {existing.reason}. Run: causeway down"
            f"{_name_flag(options.name)}",
            ExitCode.CONFLICT,
        )
    differences = existing.options.differences(options)
    if differences:
        raise ClusterError(
            f"cluster {options.name!r} already runs with other options "
            f"({'; '.join(differences)}). Run causeway down{_name_flag(options.name)} first, "
            "or give the new one another --name and --proxy-port 0 --server-port 0 --ops-port 0 "
            "--worker-port 0",
            ExitCode.CONFLICT,
        )


def _refuse_taken_ports(options: ClusterOptions) -> None:
    wanted = [
        ("--proxy-port", options.proxy_port),
        ("--server-port", options.server_port),
        ("--ops-port", options.ops_port),
    ]
    if options.worker_port:
        wanted += [("--worker-port", options.worker_port + n) for n in range(options.workers)]
    seen: dict[int, str] = {}
    for flag, port in wanted:
        if port == 0:
            continue
        if port in seen:
            raise ClusterError(
                f"{flag} and {seen[port]} are both {port}: give each its own, or 0",
                ExitCode.USAGE,
            )
        seen[port] = flag
        why = port_holder(options.host, port)
        if why:
            raise ClusterError(
                f"port {port} on {options.host} is taken ({why}): choose another {flag}, "
                "or 0 for any free one",
                ExitCode.CONFLICT,
            )


def _spawn(folder: Path, options: ClusterOptions, owner_pid: int | None) -> subprocess.Popen[bytes]:
    paths.head_binary()  # refuse here, where the message reaches a person
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    for log in logs.glob("*.log*"):
        log.unlink()  # of an earlier cluster of this name
    command = [sys.executable, "-m", "causeway.supervisor", "--dir", str(folder)]
    command += ["--options", json.dumps(options.to_json())]
    if owner_pid:
        started = processes.start_time(owner_pid) or 0
        command += ["--owner-pid", str(owner_pid), "--owner-started", str(started)]
    with (logs / "supervisor.log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env=environment.for_server(os.environ),
        )


def _wait_complete(
    folder: Path,
    options: ClusterOptions,
    supervisor: subprocess.Popen[bytes],
    timeout_seconds: float,
) -> ClusterState:
    deadline = time.monotonic() + timeout_seconds
    everyone = set(range(options.workers))
    alive: set[int] = set()
    while time.monotonic() < deadline:
        current = state.read(folder)
        if current and current.pid == supervisor.pid:
            failure = first_failure(current)
            if failure:
                raise ClusterError(f"{failure[0]} (logs: {folder / 'logs'})", failure[1])
            if current.phase == "running":
                alive = alive_workers(current)
                if everyone <= alive and waiting_spares(current) >= options.spares:
                    return current
        if supervisor.poll() is not None:
            tail = (folder / "logs" / "supervisor.log").read_text().strip().splitlines()
            why = tail[-1] if tail else f"exit status {supervisor.returncode}"
            raise ClusterError(f"the supervisor ended: {why}", ExitCode.START_FAILED)
        time.sleep(0.03)
    missing = ", ".join(map(str, sorted(everyone - alive))) or "or a spare"
    raise ClusterError(
        f"worker {missing} did not join within {timeout_seconds:.0f} s; "
        f"see the logs in {folder / 'logs'}, or give a larger --timeout",
        ExitCode.TIMEOUT,
    )


def _end_quietly(supervisor: subprocess.Popen[bytes]) -> None:
    if supervisor.poll() is None:
        supervisor.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        supervisor.wait(5.0)


def _name_flag(name: str) -> str:
    return "" if name == "default" else f" --name {name}"
