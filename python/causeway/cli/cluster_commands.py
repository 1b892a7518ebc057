"""The commands that start, show and end a cluster: up, down, status, devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from causeway.cli import cluster_options as opts
from causeway.cli import views
from causeway.cli.output import Output, OutputOption, emit, err, fail, note, out
from causeway.cluster import environment, head_api, launcher, paths, state
from causeway.cluster.errors import ClusterError, ExitCode
from causeway.cluster.options import ClusterOptions
from causeway.cluster.state import ClusterState

T = TypeVar("T")


def require_running(name: str) -> ClusterState:
    """The running cluster of that name; cleans up after one that died."""
    left = state.clean_stale(name)
    if left:
        note(f"ended {len(left)} processes that a dead supervisor of {name!r} had left")
    current = state.running(name)
    if current:
        return current
    others = [other for other in state.all_names() if state.running(other)]
    hint = f"; running: {', '.join(others)} (use --name)" if others else ""
    raise ClusterError(
        f"no cluster {name!r} runs here{hint}. Start one with: causeway up", ExitCode.NOT_RUNNING
    )


def ask_head(cluster: ClusterState, question: Callable[[str], T]) -> T:
    """What the head answers to a question of head_api; ClusterError when it does not answer."""
    try:
        return question(cluster.ops_url)
    except head_api.HeadUnreachable as error:
        raise ClusterError(
            f"the head of {cluster.options.name!r} does not answer: {error}", ExitCode.DEGRADED
        ) from error


def up(
    slices: opts.SlicesOption = opts.DEFAULT.slices,
    hosts_per_slice: opts.HostsOption = opts.DEFAULT.hosts_per_slice,
    devices_per_host: opts.DevicesOption = opts.DEFAULT.devices_per_host,
    spares: opts.SparesOption = opts.DEFAULT.spares,
    platform: opts.PlatformOption = opts.DEFAULT.platform,
    name: opts.NameOption = opts.DEFAULT.name,
    host: opts.HostOption = opts.DEFAULT.host,
    proxy_port: opts.ProxyPortOption = opts.DEFAULT.proxy_port,
    server_port: opts.ServerPortOption = opts.DEFAULT.server_port,
    ops_port: opts.OpsPortOption = opts.DEFAULT.ops_port,
    worker_port: opts.WorkerPortOption = opts.DEFAULT.worker_port,
    announce_slices: opts.AnnounceOption = opts.DEFAULT.announce_slices,
    compile_cache: opts.CompileCacheOption = opts.DEFAULT.compile_cache,
    compile_cache_bytes: opts.CompileCacheBytesOption = opts.DEFAULT.compile_cache_bytes,
    transfer_checksums: opts.TransferChecksumsOption = opts.DEFAULT.transfer_checksums,
    shared_dir: opts.SharedDirOption = opts.DEFAULT.shared_dir,
    timeout: opts.TimeoutOption = 120.0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Start a cluster on this machine and print how to use it."""
    try:
        options = ClusterOptions(
            name=name,
            slices=slices,
            hosts_per_slice=hosts_per_slice,
            devices_per_host=devices_per_host,
            spares=spares,
            platform=platform,
            host=host,
            proxy_port=proxy_port,
            server_port=server_port,
            ops_port=ops_port,
            worker_port=worker_port,
            announce_slices=announce_slices,
            compile_cache=compile_cache,
            compile_cache_bytes=compile_cache_bytes,
            transfer_checksums=transfer_checksums,
            shared_dir=shared_dir,
        )
        with err.status(f"starting {options.workers} workers") if err.is_terminal else _nothing():
            current, started = launcher.start(options, timeout)
    except ClusterError as error:
        fail(output, error)
    variables = environment.client_variables(current)
    data = {
        "ok": True,
        "started": started,
        "name": current.options.name,
        "target": current.target,
        "ops_url": current.ops_url,
        "devices": current.options.devices,
        "environment": variables,
        "state_dir": str(paths.cluster_dir(name)),
    }

    def text() -> None:
        word = "is up" if started else "already runs"
        note(
            f"cluster {name!r} {word}: {current.options.devices} devices on "
            f"{current.options.workers} workers in {current.options.slices} slices; "
            f"status and metrics at {current.ops_url}"
        )
        note("paste this into the shell of any JAX program, or use: causeway run -- COMMAND")
        for key, value in variables.items():
            print(f"export {key}={value}")

    emit(output, data, text)


class _nothing:
    """A context that does nothing, where a spinner would only litter a log."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def down(
    name: opts.NameOption = opts.DEFAULT_NAME,
    everything: Annotated[bool, typer.Option("--all", help="every cluster here")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """End a cluster: head, workers and supervisor. Nothing to end is fine."""
    names = state.all_names() if everything else [name]
    ended = [each for each in names if launcher.stop(each)]
    data = {"ok": True, "ended": ended}

    def text() -> None:
        for each in ended:
            note(f"cluster {each!r} is down")
        if not ended:
            note("no cluster runs here" if everything else f"no cluster {name!r} runs here")

    emit(output, data, text)


def status(
    name: Annotated[str | None, typer.Option("--name", help="one cluster; default: all")] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show the clusters of this machine, their processes and their health."""
    try:
        clusters = [require_running(name)] if name else _all_running()
        if not clusters:
            require_running(opts.DEFAULT_NAME)
    except ClusterError as error:
        fail(output, error)
    reports = [_report(cluster) for cluster in clusters]
    healthy = all(report["healthy"] for report in reports)

    def text() -> None:
        for cluster, report in zip(clusters, reports, strict=True):
            out.print(views.cluster_title(cluster))
            if cluster.reason:
                out.print(f"[red]{cluster.reason}[/]")
            out.print(views.processes_table(cluster, report["head"]))
            if report["head"]:
                out.print(views.sessions_line(report["head"]))

    emit(output, {"ok": healthy, "clusters": reports}, text)
    if not healthy:
        raise typer.Exit(int(ExitCode.DEGRADED))


def _all_running() -> list[ClusterState]:
    found = []
    for each in state.all_names():
        state.clean_stale(each)
        current = state.running(each)
        if current:
            found.append(current)
    return found


def _report(cluster: ClusterState) -> dict[str, Any]:
    head: dict[str, Any] | None = None
    problem = cluster.reason
    try:
        head = head_api.status(cluster.ops_url)
    except head_api.HeadUnreachable as error:
        problem = problem or str(error)
    alive = head_api.alive_workers(head) if head else set()
    return {
        "healthy": head is not None and len(alive) == cluster.options.workers,
        "problem": problem,
        "target": cluster.target,
        "alive_workers": sorted(alive),
        **dataclasses.asdict(cluster),
        "head": head,
    }


def devices(name: opts.NameOption = opts.DEFAULT_NAME, output: OutputOption = Output.TEXT) -> None:
    """List every device of a cluster with its slice, worker, state and memory."""
    try:
        cluster = require_running(name)
        found = ask_head(cluster, head_api.devices)
    except ClusterError as error:
        fail(output, error)
    emit(
        output,
        {"ok": True, "name": name, "devices": found},
        lambda: out.print(views.devices_table(cluster, found)),
    )
