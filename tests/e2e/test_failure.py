"""A worker dies: every waiting call ends with DATA_LOSS, and what did not need it goes on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from end_to_end import ClientError

SLICES = """
by_slice = {}
for d in devices:
    by_slice.setdefault(d.slice_index, []).append(d)
own = [NamedSharding(Mesh(np.array(ds), ("x",)), P("x")) for _, ds in sorted(by_slice.items())]
parts = [jax.device_put(np.arange(8, dtype=np.float32) + 10 * n, s) for n, s in enumerate(own)]
every = jax.device_put(np.ones(8, np.float32), rows)
step = jax.jit(jax.shard_map(lambda v: v + lax.pmean(v, "x"), mesh=mesh,
                             in_specs=P("x"), out_specs=P("x")))
every = step(every)
jax.block_until_ready((parts, every))
"""
# Within this many seconds of the death every call has its error.
BOUND = 20.0


@pytest.fixture
def cluster(fresh: Callable[..., Any]) -> Any:
    return fresh(slices=2, hosts_per_slice=1, devices_per_host=2, announce_slices="true")


def test_killed_worker(cluster: Any) -> None:
    client = cluster.client()
    client.do(SLICES)
    launched = cluster.status()["counters"]["gang_launches_total"]
    client.begin("while True: every = step(every * 0.25); every.block_until_ready()")
    cluster.wait_for(
        "a loop that runs", lambda s: s["counters"]["gang_launches_total"] > launched + 20
    )
    killed = time.monotonic()
    cluster.ask("kill", 1)
    with pytest.raises(ClientError, match="DATA_LOSS") as caught:
        client.finish(BOUND)
    assert time.monotonic() - killed < BOUND
    assert re.search(r"slice 1|worker 1", str(caught.value)), "the error does not say what died"
    # What lies on the other slice is as it was.
    assert client.do("result = np.asarray(parts[0]).tolist()") == [float(n) for n in range(8)]
    assert client.do("result = float(jax.jit(lambda v: v.sum())(parts[0]))") == 28.0
    # What lay on the dead one is lost, and says so each time.
    for _ in range(2):
        with pytest.raises(ClientError, match="DATA_LOSS"):
            client.do("np.asarray(parts[1] + 0)", BOUND)
    # The slice comes back to the same session, as the same devices.
    cluster.ask("restore", 1)
    cluster.wait_for("both workers", lambda s: all(w["alive"] for w in s["workers"]), 60.0)
    client.do("every = step(jax.device_put(np.full(8, 3.0, np.float32), rows))")
    assert client.do("result = np.asarray(every).tolist()", 60.0) == [6.0] * 8
    with pytest.raises(ClientError, match="DATA_LOSS"):
        client.do("np.asarray(parts[1] + 0)", BOUND)


def test_every_waiting_call_gets_an_answer(cluster: Any) -> None:
    """Threads that wait in different ways, on programs, transfers and reads."""
    client = cluster.client()
    client.do(SLICES)
    client.begin(
        """
        import threading
        stop = threading.Event()
        found = {}
        def until_lost(name, work):
            try:
                while not stop.is_set():
                    work()
            except jax.errors.JaxRuntimeError as error:
                found[name] = str(error)[:300]
        host = np.arange(1 << 16, dtype=np.float32)
        double = jax.jit(lambda v: v * 2)
        work = {
            "program": lambda: step(every).block_until_ready(),
            "lost slice": lambda: double(parts[1]).block_until_ready(),
            "read": lambda: np.asarray(double(parts[1])),
            "upload": lambda: jax.device_put(host, rows).block_until_ready(),
            "move": lambda: jax.device_put(double(parts[0]), own[1]).block_until_ready(),
        }
        threads = [threading.Thread(target=until_lost, args=item) for item in work.items()]
        for t in threads: t.start()
        for t in threads: t.join(45)
        stop.set()
        result = {"found": found, "hung": [n for n, t in zip(work, threads) if t.is_alive()]}
        """
    )
    before = cluster.status()["counters"]["gang_launches_total"]
    cluster.wait_for("work", lambda s: s["counters"]["gang_launches_total"] > before + 10)
    cluster.ask("kill", 1)
    answer = client.finish(80.0)
    assert answer["hung"] == []
    assert set(answer["found"]) == {"program", "lost slice", "read", "upload", "move"}
    for name, text in answer["found"].items():
        assert "DATA_LOSS" in text, (name, text)


def test_program_for_a_dead_slice_fails_when_awaited(cluster: Any) -> None:
    """Dispatch succeeds and the wait fails: elastic programs probe slices in this way."""
    client = cluster.client()
    client.do(SLICES)
    cluster.ask("kill", 1)
    cluster.wait_for("the death", lambda s: not s["workers"][1]["alive"])
    client.do("probe = jax.pmap(lambda v: v + 1, devices=by_slice[1])(np.ones((2, 1), np.float32))")
    with pytest.raises(ClientError, match="DATA_LOSS"):
        client.do("probe.block_until_ready()", BOUND)
    client.do("alive = jax.pmap(lambda v: v + 1, devices=by_slice[0])(np.ones((2, 1), np.float32))")
    assert client.do("result = np.asarray(alive).ravel().tolist()") == [2.0, 2.0]


def test_again_and_again(cluster: Any) -> None:
    client = cluster.client()
    client.do(SLICES)
    for number in range(3):
        victim = number % 2
        client.begin("while True: every = step(every * 0.25); every.block_until_ready()")
        cluster.ask("kill", victim)
        with pytest.raises(ClientError, match="DATA_LOSS"):
            client.finish(BOUND)
        cluster.ask("restore", victim)
        cluster.wait_for("both workers", lambda s: all(w["alive"] for w in s["workers"]), 60.0)
        client.do("every = step(jax.device_put(np.ones(8, np.float32), rows))")
        assert client.do("result = np.asarray(every).tolist()", 60.0) == [2.0] * 8
