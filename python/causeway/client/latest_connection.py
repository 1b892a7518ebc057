"""What the client package keeps for a connection: for the one that was used last only.

Compiled programs keep a connection open, and one that JAX has dropped must not stay for us.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class OfLatestConnection(Generic[T]):
    """Thread-safe."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._latest: tuple[weakref.ref[Any], T | None] | None = None

    def of(self, client: Any) -> T | None:
        """What `make` makes of the client, once; None after it was stopped for this client."""
        with self._lock:
            if self._latest is None or self._latest[0]() is not client:
                self._latest = weakref.ref(client), self._make(client)
            return self._latest[1]

    def stop(self, value: T) -> bool:
        """Not to be used again. False: it was not in use any more."""
        with self._lock:
            if self._latest is None or self._latest[1] is not value:
                return False
            self._latest = self._latest[0], None
            return True
