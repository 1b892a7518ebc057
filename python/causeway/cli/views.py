"""Tables for people: the state of a cluster and its devices."""

from __future__ import annotations

import datetime
from typing import Any

from rich import box
from rich.table import Table

from causeway.cluster.state import ClusterState

_COLOURS = {
    "running": "green",
    "alive": "green",
    "ready": "green",
    "starting": "yellow",
    "backoff": "yellow",
    "joining": "yellow",
    "kept_down": "magenta",
    "exited": "red",
    "failed": "red",
    "dead": "red",
    "lost": "red",
    "waiting": "yellow",
}


def coloured(word: str) -> str:
    return f"[{_COLOURS.get(word, 'white')}]{word.replace('_', ' ')}[/]"


def cluster_title(state: ClusterState) -> str:
    options = state.options
    up = datetime.timedelta(
        seconds=max(0, int(datetime.datetime.now().timestamp()) - int(state.created_at))
    )
    return (
        f"[bold]{options.name}[/] {coloured(state.phase)}  {state.target}  "
        f"{options.slices} slices x {options.hosts_per_slice} hosts x "
        f"{options.devices_per_host} {options.platform} devices  up {up}"
    )


def processes_table(state: ClusterState, head: dict[str, Any] | None) -> Table:
    """One row a process: what the supervisor knows of it, and whether the head sees it."""
    workers = (head or {}).get("workers", [])
    by_place = {int(entry["id"]): entry for entry in workers}
    by_pid = {int(entry["pid"]): entry for entry in workers if entry["alive"]}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = ("name", "slice", "pid", "process state", "seen by the head", "restarts", "last end")
    for column in columns:
        table.add_column(column)
    for record in state.processes:
        kind, _, number = record.role.partition("-")
        # Where there are spares, a process may fill another place than its name says, or none.
        entry = by_pid.get(record.pid)
        if entry is None and kind == "worker" and not state.options.spares:
            entry = by_place.get(int(number))
        spare = head is not None and entry is None and state.options.spares > 0
        place = "" if entry is None else str(state.options.slice_of_worker(int(entry["id"])))
        table.add_row(
            record.role,
            place,
            str(record.pid or ""),
            coloured(record.phase),
            "" if kind == "head" else "stands by" if spare else _seen(entry),
            str(record.restarts),
            record.reason.replace("[", "\\["),
        )
    return table


def devices_table(state: ClusterState, devices: list[dict[str, Any]]) -> Table:
    """One row a device, in the manner of the vendors' own tools."""
    table = Table(
        box=box.ROUNDED,
        title=f"causeway {state.options.name}  {state.target}",
        title_justify="left",
    )
    table.add_column("Device", justify="right")
    table.add_column("Kind")
    table.add_column("Slice", justify="right")
    table.add_column("Worker", justify="right")
    table.add_column("State")
    table.add_column("Buffers", justify="right")
    table.add_column("Memory", justify="right")
    for device in devices:
        table.add_row(
            str(device.get("id", "")),
            str(device.get("kind", state.options.platform)),
            str(device.get("slice", "")),
            str(device.get("worker", "")),
            coloured(str(device.get("state", ""))),
            _optional(device.get("buffers")),
            _bytes(device.get("buffer_bytes", device.get("memory_used_bytes"))),
        )
    return table


def _seen(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "[red]no answer[/]"
    why = str(entry.get("why", "")).replace("[", "\\[")
    return coloured(str(entry["state"])) + (f": {why}" if why else "")


def sessions_line(head: dict[str, Any]) -> str:
    """The clients in one sentence, "" where the head tells nothing of them."""
    sessions = head.get("sessions")
    if sessions is None:
        return ""
    held = sum(int(session.get("bytes", 0)) for session in sessions)
    return f"{len(sessions)} sessions hold {_bytes(held)}; epoch {head.get('epoch', '?')}"


def _optional(value: Any) -> str:
    return "" if value is None else str(value)


def _bytes(value: Any) -> str:
    if value is None:
        return ""
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
