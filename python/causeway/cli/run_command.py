"""`causeway run -- COMMAND`: a program on the running cluster, or on one of its own."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from causeway.cli import cluster_options as opts
from causeway.cli.cluster_commands import require_running
from causeway.cli.output import Output, OutputOption, fail, note
from causeway.cluster import environment, launcher, paths, running_command, state
from causeway.cluster.errors import ClusterError
from causeway.cluster.options import ClusterOptions
from causeway.cluster.state import ClusterState

_OptionalInt = int | None
_Name = Annotated[str | None, typer.Option("--name", help="use this running cluster")]


def run(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...")],
    name: _Name = None,
    slices: Annotated[_OptionalInt, typer.Option("--slices", min=1)] = None,
    hosts_per_slice: Annotated[_OptionalInt, typer.Option("--hosts-per-slice", min=1)] = None,
    devices_per_host: Annotated[_OptionalInt, typer.Option("--devices-per-host", min=1)] = None,
    platform: Annotated[str | None, typer.Option("--platform")] = None,
    announce_slices: Annotated[str | None, typer.Option("--announce-slices")] = None,
    compile_cache: Annotated[str | None, typer.Option("--compile-cache")] = None,
    shared_dir: Annotated[str | None, typer.Option("--shared-dir")] = None,
    timeout: opts.TimeoutOption = 120.0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Run a program on the cluster; its exit status is the program's own.

    With a cluster running (or --name) that one is used. Otherwise, or when a shape is asked for,
    a cluster of its own is started on free ports and ended when the program ends.
    """
    asked = {
        key: value
        for key, value in {
            "slices": slices,
            "hosts_per_slice": hosts_per_slice,
            "devices_per_host": devices_per_host,
            "platform": platform,
            "announce_slices": announce_slices,
            "compile_cache": compile_cache,
            "shared_dir": shared_dir,
        }.items()
        if value is not None
    }
    own: str | None = None
    try:
        current = _running(name, asked, timeout)
        if current is None:
            own = f"run-{os.getpid()}"
            options = dataclasses.replace(ClusterOptions(name=own), **asked).on_free_ports()
            # From here on SIGTERM must not skip the ending of the cluster below.
            current, _ = launcher.start(options, timeout, owner_pid=os.getpid())
            note(f"started a cluster of its own: {options.devices} devices, {current.target}")
        with tempfile.TemporaryDirectory(prefix="causeway-") as scratch:
            env = environment.for_command(current, os.environ, paths.client_path(Path(scratch)))
            env, remark = running_command.with_jax_on_path(command, env)
            if remark:
                note(remark)
            code = running_command.run(command, env)
    except ClusterError as error:
        fail(output, error)
    finally:
        if own:
            launcher.stop(own)
            state.remove(paths.cluster_dir(own), logs=True)
    if output is Output.JSON:
        # The program's own output is on stdout: the report goes to the other stream.
        print(f'{{"ok": {str(code == 0).lower()}, "exit_code": {code}}}', file=sys.stderr)
    raise typer.Exit(code)


def _running(name: str | None, asked: dict[str, object], timeout: float) -> ClusterState | None:
    """The cluster to use, or None when a new one must be started."""
    current = launcher.find_usable(name or opts.DEFAULT_NAME, timeout)
    if current is None:
        if name:
            require_running(name)  # says what runs instead
        return None
    wanted = dataclasses.replace(current.options, **asked)  # type: ignore[arg-type]
    if wanted != current.options:
        if name:
            differences = "; ".join(current.options.differences(wanted))
            raise ClusterError(
                f"cluster {name!r} has another shape ({differences}): leave out the shape to use "
                "it as it is, or leave out --name to get a cluster of that shape"
            )
        return None
    return current
