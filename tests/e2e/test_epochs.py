"""Epoch after epoch: the survivors' old XLA clients go, and nothing stays behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LONG = bool(os.environ.get("CAUSEWAY_LONG_TESTS"))
ROUNDS = 20 if LONG else 4
MIB = 1 << 20

# One worker out of memory ends the epoch for both, and no process. The state is taken over by every
# client, and replaced by a step only in part: `kept` and `big` are as old as the program.
PROGRAM = """
step = jax.jit(jax.shard_map(lambda v: v + lax.pmean(v, "x"), mesh=mesh,
                             in_specs=P("x"), out_specs=P("x")), donate_argnums=0)
too_much = jax.jit(lambda: jnp.zeros(1 << 46, jnp.float32), out_shardings=rows)
every = jax.device_put(np.ones(4, np.float32), rows)
kept = [jax.device_put(np.full(8, n, np.float32), rows) for n in range(16)]
big = jax.device_put(np.zeros(1 << 21, np.float32), rows)
def change():
    global every
    try:
        too_much().block_until_ready()
        return "it fits"
    except jax.errors.JaxRuntimeError as error:
        text = str(error)
    for _ in range(3): every = step(every * 0.5)
    every.block_until_ready()
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


@pytest.mark.timeout_seconds(300 if LONG else 120)
def test_epochs_leave_nothing_behind(fresh: Callable[..., Any]) -> None:
    cluster = fresh(slices=2, hosts_per_slice=1, devices_per_host=2)
    client = cluster.client()
    client.do(PROGRAM)
    seen: dict[str, list[dict[str, int]]] = {}
    for number in range(2 + ROUNDS):
        before = cluster.status()
        assert client.do("result = change()") == ""
        after = cluster.wait_for("the workers", lambda s: s["complete"])
        assert after["epoch"] == before["epoch"] + 1, f"round {number}"
        if number > 0:
            assert after["counters"]["compiles_total"] == before["counters"]["compiles_total"]
        for role, pid in cluster.pids().items():
            if role.startswith("worker"):
                seen.setdefault(role, []).append(_resources(pid))
    assert client.do("result = [float(k.sum()) for k in kept]") == [8.0 * n for n in range(16)]
    for role, found in seen.items():
        # An epoch takes some 15 threads and 5 descriptors; two clients are there during a change.
        for what, most in (("files", 6), ("threads", 6), ("memory", 32)):
            assert found[-1][what] <= found[1][what] + most, (role, what, found)
