"""The state file of a cluster: written by its supervisor alone, read by everyone."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

from causeway.cluster import paths, processes
from causeway.cluster.options import ClusterOptions


@dataclasses.dataclass
class ProcessRecord:
    """One child of the supervisor. `phase` is starting, running, backoff, kept_down or exited."""

    role: str  # "head" or "worker-N"
    pid: int = 0
    started: int | None = None
    phase: str = "starting"
    restarts: int = 0
    reason: str = ""  # one line: why it last ended
    final_code: int = 0  # exit status for callers when another start would end the same way
    log: str = ""


@dataclasses.dataclass
class ClusterState:
    """`phase` is starting, running, failed (the head died) or stopping."""

    options: ClusterOptions
    pid: int
    started: int | None
    phase: str = "starting"
    reason: str = ""
    host: str = "127.0.0.1"
    proxy_port: int = 0
    server_port: int = 0
    ops_port: int = 0
    created_at: float = 0.0  # seconds since 1970
    processes: list[ProcessRecord] = dataclasses.field(default_factory=list)

    @property
    def target(self) -> str:
        return f"grpc://{self.host}:{self.proxy_port}"

    @property
    def ops_url(self) -> str:
        return f"http://{self.host}:{self.ops_port}"

    def process(self, role: str) -> ProcessRecord | None:
        return next((record for record in self.processes if record.role == role), None)

    def is_alive(self) -> bool:
        return processes.is_alive(self.pid, self.started)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> ClusterState:
        fields = dict(data)
        fields["options"] = ClusterOptions.from_json(fields["options"])
        fields["processes"] = [ProcessRecord(**record) for record in fields["processes"]]
        return ClusterState(**fields)


def write(folder: Path, state: ClusterState) -> None:
    """Replaces the state file in one step: a reader sees the old one or the new one."""
    temporary = folder / f".state.{os.getpid()}.json"
    temporary.write_text(json.dumps(state.to_json(), indent=1))
    temporary.replace(folder / "state.json")


def read(folder: Path) -> ClusterState | None:
    """The state as last written, dead or alive; None when there is none that can be read."""
    try:
        return ClusterState.from_json(json.loads((folder / "state.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def running(name: str) -> ClusterState | None:
    """The state of a cluster whose supervisor runs."""
    state = read(paths.cluster_dir(name))
    return state if state and state.is_alive() else None


def all_names() -> list[str]:
    root = paths.state_root()
    if not root.is_dir():
        return []
    return sorted(entry.parent.name for entry in root.glob("*/state.json"))


def clean_stale(name: str) -> list[int]:
    """Ends what a dead supervisor left behind and removes its state; returns the ended pids.

    The logs stay, for they tell what happened. Does nothing while the supervisor runs.
    """
    folder = paths.cluster_dir(name)
    state = read(folder)
    if state is None or state.is_alive():
        return []
    left = [
        (record.pid, record.started)
        for record in state.processes
        if processes.is_alive(record.pid, record.started)
    ]
    processes.end(left, grace_seconds=5.0)
    remove(folder)
    return [pid for pid, _ in left]


def remove(folder: Path, logs: bool = False) -> None:
    """Removes the state file and the control socket, with `logs` the whole folder."""
    for name in ("state.json", "control.sock", "ready.json"):
        (folder / name).unlink(missing_ok=True)
    if logs:
        shutil.rmtree(folder, ignore_errors=True)
