"""Runs the demo's program on a cluster, takes a slice away from it and gives it back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from causeway.cluster import environment, paths
from causeway.cluster.errors import ClusterError
from causeway.cluster.state import ClusterState
from causeway.supervisor import control_socket

VICTIM = 1  # the slice that is lost
_PROGRAM_SECONDS = 300.0


def train_language_model(
    cluster: ClusterState, steps: int, print_line: Callable[[str], None]
) -> dict[str, Any] | None:
    """Runs the unmodified examples/train_lm.py on the cluster, line by line; returns its figures.

    None where the examples are not at hand (an installed package). Throws ClusterError when the
    program fails.
    """
    root = paths.checkout_root()
    script = root / "examples" / "train_lm.py" if root else None
    if script is None or not script.exists():
        return None
    with tempfile.TemporaryDirectory(prefix="causeway-demo-") as scratch:
        env = environment.for_command(cluster, os.environ, paths.client_path(Path(scratch)))
        figures = Path(scratch) / "figures.json"
        log = Path(scratch) / "program.log"
        # 12 examples a step divide among the three slices.
        arguments = [f"--steps={steps}", "--batch=12", f"--json={figures}"]
        with log.open("wb") as errors:
            program = subprocess.Popen(
                [sys.executable, str(script), *arguments],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        watchdog = threading.Timer(_PROGRAM_SECONDS, program.kill)
        watchdog.start()
        try:
            assert program.stdout is not None
            for line in program.stdout:
                print_line(line.rstrip())
            code = program.wait(30.0)
        except BaseException:
            program.kill()
            raise
        finally:
            watchdog.cancel()
        if code:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise ClusterError(f"{script.name} failed (exit status {code}):\n{tail}")
        return dict(json.loads(figures.read_text()))


def show(cluster: ClusterState, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns the figures of one run. Throws ClusterError when the program fails."""
    with tempfile.TemporaryDirectory(prefix="causeway-demo-") as scratch:
        env = environment.for_command(cluster, os.environ, paths.client_path(Path(scratch)))
        log = Path(scratch) / "program.log"
        with log.open("wb") as errors:
            program = subprocess.Popen(
                [sys.executable, "-m", "causeway.demo.train_digits"],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        try:
            figures = _follow(cluster, program, say)
            code = program.wait(30.0)
        except BaseException:
            program.kill()
            raise
        if code or "accuracy" not in figures:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise ClusterError(f"the demo's program failed (exit status {code}):\n{tail}")
        return figures


def _follow(
    cluster: ClusterState, program: subprocess.Popen[str], say: Callable[[str], None]
) -> dict[str, Any]:
    assert program.stdout is not None
    figures: dict[str, Any] = {}
    deadline = time.monotonic() + _PROGRAM_SECONDS
    taken = given_back = False
    for line in program.stdout:
        if time.monotonic() > deadline:
            raise ClusterError(f"the demo took longer than {_PROGRAM_SECONDS:.0f} s")
        event = json.loads(line)
        match event["event"]:
            case "connected":
                say(f"stock JAX sees {event['devices']} devices in {event['slices']} slices")
            case "trained":
                say(f"step {event['step']}: loss {event['loss']:.4f} on {event['slices']} slices")
                if not taken:
                    say(f"killing slice {VICTIM} with SIGKILL, in the middle of the training")
                    taken = True
                    figures["killed_at"] = time.time()
                    _ask(cluster, "kill")
                elif not given_back and "resume_seconds" in figures:
                    say(f"giving slice {VICTIM} back")
                    given_back = True
                    _ask(cluster, "restore")
            case "lost":
                figures.setdefault("error_ms", (event["seen"] - figures["killed_at"]) * 1e3)
                say(
                    f"the program saw, {(event['seen'] - figures['killed_at']) * 1e3:.0f} ms after "
                    f"the kill: {event['error'][:200]}"
                )
            case "resumed":
                figures.setdefault("resume_seconds", event["seconds"])
                say(
                    f"it went on from step {event['step']} on {event['slices']} slices "
                    f"{event['seconds']:.2f} s later, the same process, nothing restarted"
                )
            case "done":
                figures.update(accuracy=event["accuracy"], steps=event["steps"])
                figures["losses"] = event["losses"]
    figures.pop("killed_at", None)
    return figures


def _ask(cluster: ClusterState, command: str) -> None:
    folder = paths.cluster_dir(cluster.options.name)
    answer = control_socket.call(folder, {"command": command, "slice": VICTIM})
    if not answer.get("ok"):
        raise ClusterError(str(answer.get("error")))
