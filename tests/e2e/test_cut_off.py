"""A worker dies with large messages on their way to it and from it: no survivor is given up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from end_to_end import PRELUDE, ClientError

LARGE = """
n = 3 * 8 * 2**20
step = jax.jit(jax.shard_map(lambda v: lax.ppermute(v, "x", [(n, (n + 1) % 3) for n in range(3)]),
                             mesh=mesh, in_specs=P("x"), out_specs=P("x")))
start = np.arange(n, dtype=np.float32)
put = lambda: jax.device_put(start, rows)
every = step(put()); every.block_until_ready()
first = [d for d in devices if d.slice_index == 0]
kept = jax.device_put(np.arange(8.0), NamedSharding(Mesh(np.array(first), ("x",)), P("x")))
"""


def test_messages_under_way_hold_up_no_survivor(fresh: Callable[..., Any]) -> None:
    cluster = fresh(slices=3, hosts_per_slice=1, devices_per_host=1, announce_slices="true")
    client = cluster.client(prelude=PRELUDE + LARGE)
    pids = [worker["pid"] for worker in cluster.status()["workers"]]
    launched = cluster.status()["counters"]["gang_launches_total"]
    client.begin("while True: every = step(every); every.block_until_ready()")
    cluster.wait_for("steps", lambda s: s["counters"]["gang_launches_total"] > launched + 2)
    # The one who sends to worker 1 has a part of its message queued; the one who receives from it
    # has a part of a message.
    os.kill(pids[1], signal.SIGSTOP)
    time.sleep(0.5)  # until the connections to it are full, and those from it empty
    os.kill(pids[1], signal.SIGKILL)
    with pytest.raises(ClientError, match="DATA_LOSS: slice 1 lost"):
        client.finish(60.0)
    whole = cluster.wait_for("the worker's return", lambda s: s["complete"], 60.0)
    now = [worker["pid"] for worker in whole["workers"]]
    assert [n for n in range(3) if now[n] != pids[n]] == [1], "a survivor was restarted"
    assert whole["counters"]["workers_lost_total"] == 1
    assert client.do("result = np.asarray(kept).tolist()") == [float(n) for n in range(8)]
    client.do("every = step(put())")
    assert client.do("result = bool((np.asarray(every) == np.roll(start, n // 3)).all())")
