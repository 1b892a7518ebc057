"""Gives the connection's threads a coarse timer, and this thread its own one back.

Threads inherit the slack of the thread that makes them, and the client makes all of its threads
while it connects. Price: a deletion that no other request follows may be sent that much later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from causeway.client import connection
from causeway.client.libc import libc

_PR_SET_TIMERSLACK = 29
_PR_GET_TIMERSLACK = 30
SLACK_NANOSECONDS = 1_000_000


def install() -> None:
    if _current() < 0:
        raise OSError("this system has no timer slack")
    connection.around_connecting(_coarse)


@contextlib.contextmanager
def _coarse() -> Iterator[None]:
    before = _current()
    libc().prctl(_PR_SET_TIMERSLACK, SLACK_NANOSECONDS, 0, 0, 0)
    try:
        yield
    finally:
        libc().prctl(_PR_SET_TIMERSLACK, before, 0, 0, 0)


def _current() -> int:
    return int(libc().prctl(_PR_GET_TIMERSLACK, 0, 0, 0, 0))
