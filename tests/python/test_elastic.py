"""The parts of causeway.elastic that need no cluster: scaling, placement, events."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from causeway.elastic import placement, scaling
from causeway.elastic.events import EventStream


def test_scaling_keeps_the_batch_a_slice() -> None:
    assert scaling.scale(96, 0.3, 2, 3) == (64, pytest.approx(0.2))
    assert scaling.scale(96, 0.3, 2, 3, "none") == (64, 0.3)
    assert scaling.scale(64, 0.2, 1, 4, "sqrt") == (16, pytest.approx(0.1))
    with pytest.raises(ValueError, match="multiple of 3"):
        scaling.scale(100, 0.3, 2, 3)
    with pytest.raises(ValueError, match="1 to 3"):
        scaling.scale(96, 0.3, 0, 3)


@pytest.mark.parametrize(
    ("used", "expected"),
    [({0, 1, 2}, [{0}, {1}]), ({0}, [{1, 2}]), ({1, 2}, [{0}])],
)
def test_a_snapshot_outlives_every_single_slice(used: set[int], expected: list[set[int]]) -> None:
    slices = {index: [(index, k) for k in range(2)] for index in range(3)}
    groups = placement.holders(used, slices)  # type: ignore[arg-type]
    homes = [{device[0] for device in group} for group in groups]  # type: ignore[index]
    assert homes == expected
    for lost in slices:
        assert lost not in used or any(lost not in home for home in homes)


class _Head(BaseHTTPRequestHandler):
    log = "first"
    missed = 0
    events: list[dict[str, Any]] = []

    def do_GET(self) -> None:
        query = parse_qs(urlparse(self.path).query)
        after = int(query.get("after", [str(len(self.events))])[0])
        if after > len(self.events):
            after = 0
        body = {"log": self.log, "next": len(self.events), "missed": self.missed,
                "events": self.events[after:]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def head() -> Iterator[tuple[type[_Head], str]]:
    handler = type("Head", (_Head,), {"events": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _event(number: int, kind: str) -> dict[str, Any]:
    return {"number": number, "kind": kind, "slice": 1, "worker": None, "epoch": 1,
            "cause": "killed", "time": 5.0}


def test_events_come_once_and_gaps_are_told(head: tuple[type[_Head], str]) -> None:
    handler, url = head
    handler.events.append(_event(1, "lost"))
    stream = EventStream(url)
    assert stream.position == 1
    assert stream.poll() == []
    handler.events.append(_event(2, "back"))
    assert [event.kind for event in stream.poll()] == ["back"]
    assert stream.poll() == []
    handler.events.append(_event(3, "lost"))
    handler.missed = 4
    found = stream.poll()
    assert [(event.kind, event.missed) for event in found] == [("gap", 4), ("lost", 0)]
    # Another head: its numbers begin again, and what went by in between nobody knows.
    handler.log, handler.missed = "second", 0
    handler.events[:] = [_event(1, "lost")]
    assert [event.kind for event in stream.poll()] == ["gap", "lost"]
    assert next(EventStream(url, after=0)).kind == "lost"
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)
