"""`causeway demo`: a cluster on this machine, a training on it, and a failure it survives."""

from __future__ import annotations

import os

from causeway.cli import cluster_options as opts
from causeway.cli import views
from causeway.cli.output import Output, OutputOption, emit, fail, note, out
from causeway.cluster import head_api, launcher, paths, state
from causeway.cluster.errors import ClusterError
from causeway.cluster.options import ClusterOptions

_LANGUAGE_STEPS = 40


def demo(timeout: opts.TimeoutOption = 120.0, output: OutputOption = Output.TEXT) -> None:
    """Train a language model on three slices, then lose one, go on, get it back. About a minute."""
    from causeway.demo import show  # here, so that no other command pays for it

    name = f"demo-{os.getpid()}"
    options = ClusterOptions(name=name, slices=3, devices_per_host=2, announce_slices="true")
    try:
        note("starting a cluster: 3 slices, 1 host each, 2 devices each, all on this machine")
        cluster, _ = launcher.start(options.on_free_ports(), timeout, owner_pid=os.getpid())
        note("training a small language model on Python's own sources with examples/train_lm.py")
        language = show.train_language_model(cluster, _LANGUAGE_STEPS, note)
        state_now = head_api.status(cluster.ops_url)
        if output is Output.TEXT:
            out.print(views.cluster_title(cluster))
            out.print(views.processes_table(cluster, state_now))
        note("now a program that rides over a failure: one slice is killed on the way")
        figures = show.show(cluster, note)
    except ClusterError as error:
        fail(output, error)
    finally:
        launcher.stop(name)
        state.remove(paths.cluster_dir(name), logs=True)
    losses = figures.pop("losses")
    figures.update(first_loss=losses[0], last_loss=losses[-1])
    if language is not None:
        figures["language_model"] = language

    def text() -> None:
        out.print(
            f"[bold green]done[/]: {figures['steps']} steps, loss {losses[0]:.3f} to "
            f"{losses[-1]:.3f}, {figures['accuracy']:.1%} of the digits right, one slice lost "
            "and regained on the way"
        )
        out.print("next: ./causeway up, or ./causeway run -- python your_program.py")

    emit(output, {"ok": True, **figures}, text)
