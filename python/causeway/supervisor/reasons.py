"""One line that says why a child ended, made of its exit status and the end of its log."""

from __future__ import annotations

import dataclasses
import re
import signal
from collections.abc import Callable
from pathlib import Path

from causeway.cluster.errors import ExitCode

_TAIL_BYTES = 16384


@dataclasses.dataclass(frozen=True)
class Reason:
    """`final_code` is set when starting the same command again cannot end otherwise."""

    text: str
    final_code: ExitCode = ExitCode.OK


def _no_module(match: re.Match[str]) -> Reason:
    name = match["name"].split(".")[0]
    if name in ("jax", "jaxlib"):
        return Reason(
            f"this Python has no {name}: install jax and jaxlib 0.10.2 into it "
            "(pip install jax==0.10.2 jaxlib==0.10.2)",
            ExitCode.DO_NOT_RETRY,
        )
    if match["name"].startswith("causeway._native"):
        return _no_core(match)
    return Reason(f"this Python has no module {match['name']}", ExitCode.DO_NOT_RETRY)


def _port_taken(match: re.Match[str]) -> Reason:
    return Reason(
        f"a port is taken ({match[0].strip()[:160]}): choose other ports, or 0 for free ones",
        ExitCode.CONFLICT,
    )


def _no_core(_: re.Match[str]) -> Reason:
    return Reason("the worker's C++ core is not built: run ./causeway build", ExitCode.DO_NOT_RETRY)


_KNOWN: list[tuple[re.Pattern[str], Callable[[re.Match[str]], Reason]]] = [
    (re.compile(r"No module named '?(?P<name>[\w.]+)"), _no_module),
    (re.compile(r"cannot import name '_worker' from 'causeway\._native'"), _no_core),
    (
        re.compile(r"(?i)[^\n]*(address already in use|EADDRINUSE|port \d+ is taken)[^\n]*"),
        _port_taken,
    ),
]


def explain(return_code: int, log: Path, offset: int) -> Reason:
    """Why the process that wrote `log` from `offset` on ended with `return_code`."""
    tail = _tail(log, offset)
    for pattern, make in _KNOWN:
        match = pattern.search(tail)
        if match and return_code > 0:
            return make(match)
    how = describe_exit(return_code)
    if return_code == -signal.SIGKILL:
        return Reason(how)  # it had no chance to say why
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return Reason(f"{how}: {lines[-1][:300]}" if lines else how)


def describe_exit(return_code: int) -> str:
    if return_code >= 0:
        return f"exit status {return_code}"
    try:
        return f"killed by {signal.Signals(-return_code).name}"
    except ValueError:
        return f"killed by signal {-return_code}"


def _tail(log: Path, offset: int) -> str:
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            # A log shorter than `offset` was rotated meanwhile: all of it is newer.
            begin = offset if offset <= size else 0
            file.seek(max(begin, size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
