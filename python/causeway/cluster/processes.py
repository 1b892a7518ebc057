"""Processes by pid and start time, so that a number used again is never taken for the old one."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path


def start_time(pid: int) -> int | None:
    """Clock ticks after boot at which `pid` started; None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold anything, so count from the last parenthesis.
    fields = text[text.rindex(")") + 2 :].split()
    if fields[0] in ("Z", "X"):
        return None
    return int(fields[19])


def is_alive(pid: int, started: int | None) -> bool:
    """Whether the process `pid` that started at `started` still runs."""
    return pid > 0 and started is not None and start_time(pid) == started


def end(processes: list[tuple[int, int | None]], grace_seconds: float) -> list[int]:
    """SIGTERM, then after `grace_seconds` SIGKILL; returns the pids that had to be killed."""

    def alive() -> list[int]:
        return [pid for pid, started in processes if is_alive(pid, started)]

    for pid in alive():
        _signal(pid, signal.SIGTERM)
    if wait_until(lambda: not alive(), grace_seconds):
        return []
    killed = alive()
    for pid in killed:
        _signal(pid, signal.SIGKILL)
    wait_until(lambda: not alive(), 5.0)
    return killed


def wait_until(condition, seconds: float, interval: float = 0.02) -> bool:
    """Polls `condition` until it holds; False when `seconds` passed first."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
    return True


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
