"""Epoch after epoch: the survivors' old XLA clients go, and who cannot go on is replaced."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from end_to_end import ClientError

LONG = bool(os.environ.get("CAUSEWAY_LONG_TESTS"))
ROUNDS = 20 if LONG else 4
MIB = 1 << 20
WAIT_SECONDS = 60.0

# One worker out of memory ends the epoch for both, and no process. The state is taken over by every
# client, and replaced by a step only in part: `kept` and `big` are as old as the program, and
# `small` gets an element in every epoch, which must not keep that epoch's client.
PROGRAM = """
step = jax.jit(jax.shard_map(lambda v: v + lax.pmean(v, "x"), mesh=mesh,
                             in_specs=P("x"), out_specs=P("x")), donate_argnums=0)
too_much = jax.jit(lambda: jnp.zeros(1 << 46, jnp.float32), out_shardings=rows)
every = jax.device_put(np.ones(4, np.float32), rows)
kept = [jax.device_put(np.full(8, n, np.float32), rows) for n in range(16)]
big = jax.device_put(np.zeros(1 << 21, np.float32), rows)
small = []
def change():
    global every
    try:
        too_much().block_until_ready()
        return "it fits"
    except jax.errors.JaxRuntimeError as error:
        text = str(error)
    for _ in range(3): every = step(every * 0.5)
    every.block_until_ready()
    small.append(jax.device_put(np.full(8, len(small), np.float32), rows))
    return text if "RESOURCE_EXHAUSTED" not in text else ""
"""


def _resources(pid: int) -> dict[str, int]:
    proc = Path(f"/proc/{pid}")
    pages = int((proc / "statm").read_text().split()[1])
    return {
        "files": len(list((proc / "fd").iterdir())),
        "threads": len(list((proc / "task").iterdir())),
        "memory": pages * os.sysconf("SC_PAGE_SIZE") // MIB,
    }


def _grown(level: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    """What is more than the level. A client takes some 27 threads and 10 descriptors."""
    spare = {"files": 6, "threads": 6, "memory": 96}  # huge pages make the allocator generous
    return {what: count for what, count in now.items() if count > level[what] + spare[what]}


@pytest.mark.timeout_seconds(300 if LONG else 120)
def test_epochs_leave_nothing_behind(fresh: Callable[..., Any]) -> None:
    cluster = fresh(slices=2, hosts_per_slice=1, devices_per_host=2)
    client = cluster.client()
    client.do(PROGRAM)
    level: dict[str, dict[str, int]] = {}
    for number in range(2 + ROUNDS):
        before = cluster.status()
        assert client.do("result = change()") == ""
        after = cluster.wait_for("the workers", lambda s: s["complete"])
        assert after["epoch"] == before["epoch"] + 1, f"round {number}"
        if number > 0:
            assert after["counters"]["compiles_total"] == before["counters"]["compiles_total"]
        if number == 1:
            level = {role: _resources(pid) for role, pid in cluster.pids().items()
                     if role.startswith("worker")}
    assert client.do("result = [float(k.sum()) for k in kept]") == [8.0 * n for n in range(16)]
    assert client.do("result = [float(s.sum()) for s in small]") == [
        8.0 * n for n in range(2 + ROUNDS)
    ]
    assert client.do("result = float(big.sum())") == 0.0
    # Old clients are freed a moment after a change, so that no step waits for it.
    pids = {role: pid for role, pid in cluster.pids().items() if role.startswith("worker")}
    assert pids.keys() == level.keys()
    until = time.monotonic() + WAIT_SECONDS
    for role, pid in pids.items():
        while found := _grown(level[role], _resources(pid)):
            assert time.monotonic() < until, (role, level[role], found)
            time.sleep(0.2)


# The collective of these never begins: it waits for a user's function that does not return.
HANG = """
import threading
never, begun = threading.Event(), threading.Event()
def wait(v):
    begun.set()
    never.wait()
    return v
hang = jax.jit(jax.shard_map(lambda v: lax.pmean(jax.pure_callback(wait, v, v), "x"), mesh=mesh,
                             in_specs=P("x"), out_specs=P("x")))
host = np.arange(4, dtype=np.float32)
double = jax.jit(lambda v: v * 2)
stuck = hang(jax.device_put(host, rows))
begun.wait(60)
"""


@pytest.mark.timeout_seconds(180)
def test_a_survivor_that_does_not_drain_is_replaced(
    fresh: Callable[..., Any], state_dir: Path
) -> None:
    cluster = fresh(slices=2, hosts_per_slice=1, devices_per_host=2, announce_slices="true",
                    head_flags=("--drain-max=1s",))
    client = cluster.client()
    client.do(HANG)
    before = cluster.pids()
    cluster.ask("kill", 1)
    # The cause is the death, told at once; that the survivor hangs shows when its time is over.
    with pytest.raises(ClientError, match=r"DATA_LOSS: slice 1 lost.*SIGKILL"):
        client.do("stuck.block_until_ready()")
    cluster.wait_for(
        "the verdict", lambda s: s["workers"][0]["pid"] not in (0, before["worker-0"]), WAIT_SECONDS
    )
    # It ended by itself, and did not attach once more before.
    log = (state_dir / cluster.name / "logs" / "worker-0.log").read_text()
    assert re.search(
        r"this process ends: 1 launches of the older epoch did not end within 1s"
        r" \(launch \d+ of jit__lambda.*, in the device's hands for", log), log
    # It says where they hang: the thread that runs the program waits inside XLA.
    assert re.search(r"what hangs may be seen here: \d+ of \d+ threads told", log), log
    assert re.search(r"BlockUntilReady.* in libjax_common.so", log), log
    assert log.count("attached as worker 0") == 2, log
    cluster.ask("restore", 1)
    cluster.wait_for("all workers", lambda s: s["complete"], WAIT_SECONDS)
    client.do("never.set(); again = double(jax.device_put(host, rows))")
    assert client.do("result = np.asarray(again).tolist()") == [0.0, 2.0, 4.0, 6.0]


# The worker in the middle drops launches, the first of an epoch among them. Those before it in the
# order of ranks wait for its address and give up, without ever connecting to those behind it.
ONE_SIDED = """
step = jax.jit(jax.shard_map(lambda v: v + lax.pmean(v, "x"), mesh=mesh,
                             in_specs=P("x"), out_specs=P("x")))
host = np.arange(5, dtype=np.float32)
def run():
    try:
        return np.asarray(step(jax.device_put(host, rows))).tolist()
    except jax.errors.JaxRuntimeError as error:
        return str(error)
"""


def test_a_first_launch_that_one_worker_drops_ends_for_all(fresh: Callable[..., Any]) -> None:
    """The others wait for a connection that nobody makes: they are broken off, not restarted."""
    cluster = fresh(slices=1, hosts_per_slice=5, devices_per_host=1,
                    faults={2: "skip_launch=1,oom_launch=2,period=4"})
    client = cluster.client()
    client.do(ONE_SIDED)
    before = cluster.pids()
    seen = [client.do("result = run()") for _ in range(20)]
    failed = [text for text in seen if isinstance(text, str)]
    # Of each four the first and the second, which is the first of another epoch.
    assert len(failed) == 10, seen
    assert all("fault injection" in text for text in failed), seen
    assert [v for v in seen if not isinstance(v, str)] == [[2.0, 3.0, 4.0, 5.0, 6.0]] * 10
    assert cluster.pids() == before
    assert cluster.status()["counters"]["workers_lost_total"] == 0
