"""`causeway explain`: why the cluster does what it does, from what it counts."""

from __future__ import annotations

from typing import Any

import typer
from rich.table import Table

from causeway.cli import cluster_options as opts
from causeway.cli.cluster_commands import ask_head, require_running
from causeway.cli.output import Output, OutputOption, emit, fail, out
from causeway.cluster import head_api
from causeway.cluster.errors import ClusterError

app = typer.Typer(help="Explain what a cluster does.", no_args_is_help=True)

_CLASSES = {
    "upload": "head to worker: arrays that clients send",
    "push": "worker to worker: device_put and resharding between hosts",
    "download": "worker to client: large arrays that clients read",
}
_PATHS = {
    "shared_memory": "shared memory",
    "stream": "network",
    "local": "same process, no copy",
}
_COUNTERS = ("transfers", "bytes", "microseconds")


@app.callback()
def explain() -> None:
    """Explain what a cluster does."""


@app.command()
def transfer(
    name: opts.NameOption = opts.DEFAULT_NAME, output: OutputOption = Output.TEXT
) -> None:
    """Show which way arrays take between client, head and workers, how fast, and why.

    Workers report every few seconds, so the newest transfers may be missing.
    """
    try:
        head = ask_head(require_running(name), head_api.status)
    except ClusterError as error:
        fail(output, error)
    found = summary(head["workers"])

    def text() -> None:
        table = Table("class", "path", "transfers", "bytes", "GB/s", box=None)
        for row in found["paths"]:
            speed = row["gb_per_s"]
            table.add_row(
                row["class"], _PATHS.get(row["path"], row["path"]), f"{row['transfers']:,}",
                f"{row['bytes']:,}", "-" if speed is None else f"{speed:.2f}",
            )
        out.print(table if found["paths"] else "no array has been moved yet")
        for kind, meaning in _CLASSES.items():
            if any(row["class"] == kind for row in found["paths"]):
                out.print(f"[dim]{kind}: {meaning}[/]")
        for line in found["remarks"]:
            out.print(line)

    emit(output, {"ok": True, "name": name, **found}, text)


def summary(workers: list[dict[str, Any]]) -> dict[str, Any]:
    """The workers' counters added up by class and path, and what is to be said about them."""
    totals: dict[tuple[str, str], dict[str, int]] = {}
    others: dict[str, int] = {}
    for worker in workers:
        for counter, value in worker.get("transfers", {}).items():
            stem, _, unit = counter.rpartition("_")
            kind, _, path = stem.partition("_")
            if unit in _COUNTERS and path:
                entry = totals.setdefault((kind, path), dict.fromkeys(_COUNTERS, 0))
                entry[unit] += value
            else:
                others[counter] = others.get(counter, 0) + value
    paths = [
        {
            "class": kind,
            "path": path,
            **counts,
            "gb_per_s": counts["bytes"] / counts["microseconds"] / 1e3
            if counts["microseconds"]
            else None,
        }
        for (kind, path), counts in sorted(totals.items())
    ]
    by_socket, by_tcp = (others.pop(f"head_connections_{way}", 0) for way in ("unix", "tcp"))
    remarks = []
    if by_socket or by_tcp:
        remarks.append(
            f"workers' connections to the head: {by_socket:,} through its Unix socket, "
            f"{by_tcp:,} over TCP"
        )
    remarks += [f"{name.replace('_', ' ')}: {value:,}" for name, value in sorted(others.items())]
    memories = {worker.get("memory", "") for worker in workers if worker.get("alive")}
    if "" in memories:
        remarks.append("a worker has no shared memory (/dev/shm): its blocks take the network")
    elif len(memories) > 1:
        remarks.append("workers on several machines, or of several users: no memory in common")
    remarks += [
        f"worker {worker['id']} last left a faster path because: {worker['transfer_fallback']}"
        for worker in workers
        if worker.get("transfer_fallback")
    ]
    return {"paths": paths, "remarks": remarks}
