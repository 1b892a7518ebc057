"""Has the connection's gRPC poll in the thread that waits, not in a pool that hands over to it.

gRPC reads the variable once, when the first channel is made. It is taken away again, so that a
gRPC of the program's own, or of a child, is left as it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from causeway.client import connection

_VARIABLE = "GRPC_EXPERIMENTS"


def install() -> None:
    connection.around_connecting(_without_the_pool)


@contextlib.contextmanager
def _without_the_pool() -> Iterator[None]:
    if _VARIABLE in os.environ:  # the user has chosen
        yield
        return
    os.environ[_VARIABLE] = "-event_engine_client"
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
