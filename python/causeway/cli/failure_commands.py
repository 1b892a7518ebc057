"""The commands that take a slice away and give it back, and the logs that tell the story."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Annotated, Any

import typer

from causeway.cli import cluster_options as opts
from causeway.cli.cluster_commands import require_running
from causeway.cli.output import Output, OutputOption, emit, fail, note
from causeway.cluster import launcher, paths, processes
from causeway.cluster.errors import ClusterError, ExitCode
from causeway.cluster.state import ClusterState
from causeway.supervisor import control_socket

kill_app = typer.Typer(help="Take a part of a cluster away, as a failure would.")
restore_app = typer.Typer(help="Give back what was taken away.")
SliceArgument = Annotated[int, typer.Argument(metavar="N", min=0, help="index of the slice")]
WaitOption = Annotated[
    float, typer.Option("--timeout", help="seconds to wait until the head has noticed")
]


@kill_app.command("slice")
def kill_slice(
    index: SliceArgument,
    name: opts.NameOption = opts.DEFAULT_NAME,
    timeout: WaitOption = 30.0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Kill the workers of slice N with SIGKILL and keep them down."""
    _change(output, name, "kill", index, timeout)


@restore_app.command("slice")
def restore_slice(
    index: SliceArgument,
    name: opts.NameOption = opts.DEFAULT_NAME,
    timeout: WaitOption = 60.0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Start the workers of slice N again and wait until they have joined."""
    _change(output, name, "restore", index, timeout)


def _change(output: Output, name: str, command: str, index: int, timeout: float) -> None:
    try:
        cluster = require_running(name)
        workers = set(cluster.options.workers_of_slice(index))
        answer = _ask(cluster, {"command": command, "slice": index})
        begun = time.monotonic()
        if command == "kill":
            # A spare may have taken the place by the time of the first look.
            gone = set(answer["pids"])
            noticed = processes.wait_until(
                lambda: not (gone & launcher.worker_pids(cluster, workers)), timeout
            )
        else:
            noticed = launcher.wait_workers(cluster, workers, timeout)
        seconds = time.monotonic() - begun
        if not noticed:
            raise ClusterError(
                f"the head did not notice within {timeout:.0f} s: see causeway status and "
                f"causeway logs --name {name}",
                ExitCode.TIMEOUT,
            )
    except ClusterError as error:
        fail(output, error)
    data = {"ok": True, "slice": index, "pids": answer["pids"], "noticed_seconds": seconds}
    done = "killed, and kept down" if command == "kill" else "restored, and joined"
    numbers = ", ".join(map(str, sorted(workers)))
    emit(
        output,
        data,
        lambda: note(f"slice {index} (worker {numbers}) is {done} after {seconds * 1e3:.0f} ms"),
    )


def _ask(cluster: ClusterState, message: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = control_socket.call(paths.cluster_dir(cluster.options.name), message)
    except control_socket.SupervisorUnreachable as error:
        raise ClusterError(f"the supervisor does not answer: {error}") from error
    if not answer.get("ok"):
        raise ClusterError(str(answer.get("error")))
    return answer


def logs(
    worker: Annotated[int | None, typer.Option("--worker", min=0, help="this worker's")] = None,
    head: Annotated[bool, typer.Option("--head", help="the head's only")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until Ctrl-C")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="last lines of each")] = 40,
    name: opts.NameOption = opts.DEFAULT_NAME,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print the logs of the head and the workers; they outlive the cluster."""
    folder = paths.cluster_dir(name) / "logs"
    files = sorted(folder.glob("*.log"))
    if head or worker is not None:
        wanted = (["head"] if head else []) + ([f"worker-{worker}"] if worker is not None else [])
        files = [folder / f"{stem}.log" for stem in wanted]
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        fail(
            output,
            ClusterError(
                f"there is no {', '.join(f.name for f in missing) or 'log'} in {folder}: "
                f"start the cluster with causeway up --name {name}",
                ExitCode.NOT_RUNNING,
            ),
        )
    tails = {file.stem: _last_lines(file, lines) for file in files}
    emit(output, {"ok": True, "logs": tails}, lambda: _print_tails(tails))
    if follow:
        _follow(files)


def _print_tails(tails: dict[str, list[str]]) -> None:
    for stem, found in tails.items():
        for line in found:
            print(f"{stem:>10} | {line}" if len(tails) > 1 else line)


def _last_lines(file: Path, count: int) -> list[str]:
    with file.open(errors="replace") as text:
        return [line.rstrip("\n") for line in deque(text, maxlen=count)]


def _follow(files: list[Path]) -> None:
    positions = {file: file.stat().st_size for file in files}
    try:
        while True:
            for file in files:
                size = file.stat().st_size
                if size < positions[file]:
                    positions[file] = 0  # rotated
                if size > positions[file]:
                    with file.open("rb") as text:
                        text.seek(positions[file])
                        new = text.read()
                    positions[file] += len(new)
                    _print_tails_of(file, new, len(files) > 1)
            time.sleep(0.2)
    except (KeyboardInterrupt, FileNotFoundError):
        return


def _print_tails_of(file: Path, new: bytes, prefix: bool) -> None:
    for line in new.decode(errors="replace").splitlines():
        print(f"{file.stem:>10} | {line}" if prefix else line, flush=True)
