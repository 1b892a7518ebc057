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

from causeway.cluster import environment, head_api, paths
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
    killed = restored = 0.0
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
                    killed = _ask(cluster, "kill")["time"]
                elif not given_back and "resume_seconds" in figures:
                    say(f"giving slice {VICTIM} back: its worker starts anew and imports JAX")
                    given_back = True
                    restored = time.time()
                    _ask(cluster, "restore")
            case "lost":
                figures.setdefault("error_ms", (event["seen"] - killed) * 1e3)
                say(f"the program saw this exception: {event['error'][:240]}")
            case "resumed":
                figures.setdefault("resume_seconds", event["seconds"])
                phases = phases_of(cluster, killed, event)
                figures["phases_ms"] = {phase: value for phase, (value, _) in phases.items()}
                say(
                    f"it goes on from step {event['step']} on {event['slices']} slices: the same "
                    "process, nothing restarted"
                )
                for phase, (milliseconds, meaning) in phases.items():
                    say(f"  {milliseconds:7.1f} ms  {phase}: {meaning}")
            case "whole":
                figures["return_seconds"] = event["seen"] - restored
                say(
                    f"slice {VICTIM} is back {figures['return_seconds']:.1f} s later, as the same "
                    f"devices; the training uses {event['slices']} slices again"
                )
            case "done":
                figures.update(accuracy=event["accuracy"], steps=event["steps"])
                figures["losses"] = event["losses"]
    return figures


def phases_of(
    cluster: ClusterState, killed: float, resumed: dict[str, Any]
) -> dict[str, tuple[float, str]]:
    """How long each phase of the newest recovery took, in milliseconds, and what it was."""
    recovery = head_api.status(cluster.ops_url)["recovery"]
    known = recovery["time"] - killed
    entered = recovery["drain_seconds"] + recovery["client_seconds"] + recovery["adopt_seconds"]
    # Each is that of the slowest worker, and not all of them need be the same one's.
    agreed = max(0.0, recovery["opened_seconds"] - entered)
    meanings = {
        "detect": (known, "from SIGKILL until the head knew, and had fenced off the old epoch"),
        "abort": (recovery["drain_seconds"], "survivors broke off what waited for the dead one"),
        "epoch": (recovery["client_seconds"], "a new XLA client in each survivor"),
        "adopt": (recovery["adopt_seconds"], "live arrays taken over, nothing copied"),
        "agree": (agreed, "messages, until all were in the epoch"),
        "error": (resumed["lost_at"] - killed, "from SIGKILL until the program had the exception"),
        "resume": (resumed["seconds"], "from there, until the next step was done"),
        "in all": (resumed["seen"] - killed, "from SIGKILL until the next step was done"),
    }
    return {phase: (seconds * 1e3, text) for phase, (seconds, text) in meanings.items()}


def _ask(cluster: ClusterState, command: str) -> dict[str, Any]:
    folder = paths.cluster_dir(cluster.options.name)
    answer = control_socket.call(folder, {"command": command, "slice": VICTIM})
    if not answer.get("ok"):
        raise ClusterError(str(answer.get("error")))
    return answer
