"""Starts client processes: each measurement runs in fresh ones, with nothing left from before."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import processes
from harness.systems import System, free_port

_ENTRY = Path(__file__).resolve().parent.parent / "client.py"
RESULT_PREFIX = "RESULT "


class ClientFailed(Exception):
    """A client process ended badly or too late; the text holds the end of what it said."""


def run(case: str, system: System, config: dict[str, Any], timeout_seconds: float = 300.0) -> Any:
    """What the case's `client(config)` returned, in a process (or several) of that system."""
    coordinator = f"127.0.0.1:{free_port()}"
    children = []
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / f"client-{rank}.log" for rank in range(system.clients)]
        try:
            for rank, log in enumerate(logs):
                full = {
                    **config,
                    "system": system.name,
                    "server_pids": list(system.pids),
                    "rank": rank,
                    "clients": system.clients,
                    "coordinator": coordinator,
                }
                with log.open("wb") as output:
                    children.append(
                        subprocess.Popen(
                            [sys.executable, str(_ENTRY), case, json.dumps(full)],
                            env=system.environment,
                            stdin=subprocess.DEVNULL,
                            stdout=output,
                            stderr=subprocess.STDOUT,
                        )
                    )
            results = [
                _result(case, system, child, log, timeout_seconds)
                for child, log in zip(children, logs, strict=True)
            ]
        finally:
            for child in children:
                processes.end(child)
    return results[0] if len(results) == 1 else _merged(results)


def _result(
    case: str, system: System, child: subprocess.Popen, log: Path, timeout_seconds: float
) -> Any:
    try:
        child.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        raise ClientFailed(
            f"{case} on {system.name} took more than {timeout_seconds:.0f} s; "
            f"it last said:\n{_tail(log)}"
        ) from None
    lines = [
        line for line in log.read_text(errors="replace").splitlines()
        if line.startswith(RESULT_PREFIX)
    ]
    if child.returncode or not lines:
        raise ClientFailed(
            f"{case} on {system.name} ended with status {child.returncode}:\n{_tail(log)}"
        )
    return json.loads(lines[-1].removeprefix(RESULT_PREFIX))


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-25:])


def _merged(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The first process's times; processor time is that of all of them."""
    merged = {
        key: dict(value) if isinstance(value, dict) else value
        for key, value in results[0].items()
    }
    for other in results[1:]:
        for key, value in other.items():
            if not isinstance(value, dict):
                continue
            for name in ("cpu_us", "client_cpu_us"):
                if name in value:
                    merged[key][name] += value[name]
    return merged
