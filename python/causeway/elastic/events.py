"""The event stream of a cluster's slices: lost, back, spare, and gaps in what was seen of them."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from causeway.cluster import head_api

# HOST:PORT of the head's operations port, for clients that reach it through a tunnel.
VARIABLE = "CAUSEWAY_OPS_TARGET"
_PORT_ATTRIBUTE = "causeway_ops_port"
_WAIT_SECONDS = 5.0  # one question; close() takes effect within this time
_ANSWER_SECONDS = 10.0  # beyond the wait, for the head to answer


@dataclasses.dataclass(frozen=True)
class Event:
    """`kind` is "lost", "back" or "spare"; or "gap": `missed` events went by unseen.

    A gap without a number of events (`missed` is 0) means that the head is another one than before.
    `time` is in seconds since 1970, on the head's clock.
    """

    kind: str
    slice_index: int | None = None
    worker: int | None = None
    cause: str = ""
    time: float = 0.0
    epoch: int = 0
    number: int = 0
    missed: int = 0


class EventStream:
    """Iterate to wait for events one by one, or `poll`. Not thread-safe, but for `close`."""

    def __init__(self, ops_url: str, after: int | None = None) -> None:
        self._url = ops_url
        self._log = ""
        self._ready: deque[Event] = deque()
        self._closed = threading.Event()
        self._next = after
        if after is None:
            # The position is fixed now: what happens before the first poll is seen by it.
            answer = head_api.get_json(self._url, "/events", _ANSWER_SECONDS)
            self._next, self._log = int(answer["next"]), str(answer["log"])

    @property
    def position(self) -> int:
        """Number of the newest event seen; `watch(after=...)` goes on behind it."""
        return self._next or 0

    def poll(self, wait_seconds: float = 0.0) -> list[Event]:
        """What happened since the last call; waits up to `wait_seconds` for the first event.

        Throws `causeway.cluster.head_api.HeadUnreachable` when the head does not answer.
        """
        path = f"/events?after={self._next}&wait_seconds={int(wait_seconds)}"
        answer = head_api.get_json(self._url, path, wait_seconds + _ANSWER_SECONDS)
        found: list[Event] = []
        if self._log and answer["log"] != self._log:
            found.append(Event("gap", cause="the head is another one than before"))
        if answer["missed"]:
            count = int(answer["missed"])
            found.append(Event("gap", cause=f"{count} events went by unseen", missed=count))
        found += [_event(entry) for entry in answer["events"]]
        self._next, self._log = int(answer["next"]), str(answer["log"])
        return found

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while not self._ready:
            if self._closed.is_set():
                raise StopIteration
            self._ready.extend(self.poll(_WAIT_SECONDS))
        return self._ready.popleft()

    def close(self) -> None:
        """Ends an iteration, from any thread, within a few seconds."""
        self._closed.set()


def watch(after: int | None = None, ops_url: str | None = None) -> EventStream:
    """The events of the cluster that JAX in this process uses, from now on or `after` a number.

        for event in causeway.elastic.watch():
            print(event.kind, event.slice_index, event.cause)
    """
    return EventStream(ops_url or find_ops_url(), after)


def find_ops_url() -> str:
    """Where the head of JAX's cluster answers questions about operations.

    Throws RuntimeError when JAX does not use a cluster of Causeway.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return f"http://{chosen}"
    import jax

    client: Any = jax.devices()[0].client
    port = getattr(client, _PORT_ATTRIBUTE, None)
    if not port:
        raise RuntimeError(
            "JAX in this process uses no cluster of Causeway: start the program with "
            f"causeway run, or set {VARIABLE}=HOST:PORT to the head's --ops-port"
        )
    target = jax.config.read("jax_backend_target") or ""
    host = target.split("://")[-1].rpartition(":")[0]
    return f"http://{host}:{int(port)}"


def _event(entry: dict[str, Any]) -> Event:
    return Event(
        kind=str(entry["kind"]),
        slice_index=entry["slice"],
        worker=entry["worker"],
        cause=str(entry["cause"]),
        time=float(entry["time"]),
        epoch=int(entry["epoch"]),
        number=int(entry["number"]),
    )
