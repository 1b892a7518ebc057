"""A real head with emulated hosts, which have no devices and answer at once."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness import processes, systems
from harness.systems import System

_START_SECONDS = 60.0


@contextlib.contextmanager
def cluster(
    slices: int, hosts_per_slice: int, groups: Sequence[int] = ()
) -> Iterator[tuple[System, list[subprocess.Popen]]]:
    """The system, and the processes that play its hosts; each of `groups` hosts has its own."""
    from causeway.cluster import paths

    hosts = slices * hosts_per_slice
    binary = systems.ROOT / "build" / "release" / "bench" / "bench_emulated_hosts"
    if not binary.exists():
        raise FileNotFoundError(f"{binary} is not built: run ./causeway build")
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as output:
        ready = Path(folder) / "ready.json"
        started: list[subprocess.Popen] = []
        try:
            head = subprocess.Popen(
                [
                    str(paths.head_binary()), "--proxy-port=0", "--server-port=0", "--ops-port=0",
                    "--host=127.0.0.1", f"--slices={slices}",
                    f"--hosts-per-slice={hosts_per_slice}", "--devices-per-host=1",
                    "--platform=cpu", "--announce-slices=false", f"--ready-file={ready}",
                ],
                stdout=output, stderr=output,
            )
            started.append(head)
            ports = _wait_ready(ready, head)
            first = 0
            for count in groups or (hosts,):
                started.append(subprocess.Popen(
                    [str(binary), f"127.0.0.1:{ports['server_port']}", str(count), str(first)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True,
                ))
                first += count
            ops_url = f"http://127.0.0.1:{ports['ops_port']}"
            _wait_joined(ops_url, hosts)
            target = f"grpc://127.0.0.1:{ports['proxy_port']}"
            yield systems.proxied("Causeway", target, (head.pid,), ops_url=ops_url), started[1:]
        finally:
            for child in reversed(started):
                processes.end(child)


def _wait_ready(ready: Path, head: subprocess.Popen) -> dict[str, int]:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and head.poll() is None:
        try:
            return json.loads(ready.read_text())
        except (OSError, ValueError):
            time.sleep(0.02)
    raise TimeoutError(f"the head was not ready (exit status {head.poll()})")


def _wait_joined(ops_url: str, hosts: int) -> None:
    from causeway.cluster import head_api

    end = time.monotonic() + _START_SECONDS
    alive: set[int] = set()
    while time.monotonic() < end:
        alive = head_api.alive_workers(head_api.status(ops_url, _START_SECONDS))
        if len(alive) == hosts:
            return
        time.sleep(0.1)
    raise TimeoutError(f"{len(alive)} of {hosts} emulated hosts joined")
