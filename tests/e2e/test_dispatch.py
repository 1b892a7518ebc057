"""What a steady training loop sends: a launch a step, and no question that waits for an answer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS = 100
LOOP = """
w = jax.device_put(np.ones((8, 4), np.float32), rows)
m = jax.device_put(np.zeros((8, 4), np.float32), rows)
batch = jax.device_put(np.full((8, 4), 0.5, np.float32), rows)
def update(w, m, batch):
    g = jax.grad(lambda w: jnp.mean((w * batch) ** 2))(w)
    m = 0.9 * m + g
    return w - 0.1 * m, m
step = jax.jit(update, donate_argnums=(0, 1))
for _ in range(3): w, m = step(w, m, batch)
jax.block_until_ready((w, m))
"""
# Each of these makes the client wait for a reply.
QUESTIONS = (
    "check_value_ready",
    "copy_to_host_buffer",
    "check_future",
    "compile",
    "loaded_executable_metadata",
    "get_default_layout",
    "is_array_deleted",
    "fully_replicated_shard",
)


def test_a_step_is_one_launch_and_no_question(shared: Any) -> None:
    client = shared.client()
    client.do(LOOP)
    before, counters = shared.requests(), shared.status()["counters"]
    client.do(f"for _ in range({STEPS}): w, m = step(w, m, batch)")
    client.do("jax.block_until_ready((w, m))")
    sent = {k: v - before.get(k, 0) for k, v in shared.requests().items()}
    launched = shared.status()["counters"]["launches_total"] - counters["launches_total"]
    executes = sum(v for k, v in sent.items() if "execute" in k and "executable_execute" in k)
    assert executes == STEPS, sent
    assert launched == STEPS
    asked = {k: v for k, v in sent.items() if any(q in k for q in QUESTIONS) and v}
    # One for the block_until_ready after the loop.
    assert sum(asked.values()) <= 2, asked


def test_gloos_threads_interrupt_nobody(shared: Any) -> None:
    """Theirs alone are batch threads, so that they never take a launch's processor."""
    for role, pid in shared.pids().items():
        if not role.startswith("worker"):
            continue
        policies = [os.sched_getscheduler(int(t.name)) for t in Path(f"/proc/{pid}/task").iterdir()]
        assert os.SCHED_BATCH in policies and os.sched_getscheduler(pid) == os.SCHED_OTHER


def test_programs_compile_once(shared: Any) -> None:
    """A second client with the same program finds it compiled."""
    source = "result = float(jax.jit(lambda v: jnp.sin(v * 1.2345).sum())(np.ones(8, np.float32)))"
    first = shared.client().do(source)
    before = shared.status()["counters"]
    assert shared.client().do(source) == first
    after = shared.status()["counters"]
    assert after["compiles_total"] == before["compiles_total"]
    assert after["compile_cache_hits_total"] > before["compile_cache_hits_total"]


def test_all_reduces_are_one_where_no_peer_can_fail(
    shared: Any, fresh: Callable[..., Any]
) -> None:
    """Through gloo they stay apart: a part that fails must end those behind it."""
    sums = """
both = jax.shard_map(lambda x, y: (jax.lax.psum(x, "x"), jax.lax.psum(y, "x")),
                     mesh=rows.mesh, in_specs=(P("x"), P("x")), out_specs=(P(), P()))
x = jax.device_put(np.arange(8, dtype=np.float32), rows)
compiled = jax.jit(both).lower(x, x + 1).compile()
result = [compiled.as_text().count("all-reduce("), *(float(v.sum()) for v in compiled(x, x + 1))]
"""
    assert shared.client().do(sums) == [2, 28.0, 36.0]
    alone = fresh(slices=1, hosts_per_slice=1, devices_per_host=2)
    assert alone.client().do(sums) == [1, 28.0, 36.0]


def test_dispatch_does_not_wait_for_the_work(shared: Any) -> None:
    """Steps are handed over while an earlier one still runs."""
    client = shared.client()
    client.do(
        """
        slow = jax.jit(lambda v: lax.fori_loop(0, 400, lambda n, a: jnp.tanh(a @ a) * 0.5, v))
        quick = jax.jit(lambda v: v + 1)
        x = jnp.eye(256) * 0.5
        slow(x).block_until_ready(); quick(x).block_until_ready()
        import time
        begun = time.perf_counter()
        slow(x).block_until_ready()
        alone = time.perf_counter() - begun
        """
    )
    share = client.do(
        """
        begun = time.perf_counter()
        y = slow(slow(slow(x)))
        for _ in range(10): y = quick(y)
        handed_over = time.perf_counter() - begun
        y.block_until_ready()
        result = handed_over / (time.perf_counter() - begun)
        """
    )
    assert share < 0.5


def test_a_result_of_one_device_moves_and_is_cut_up(shared: Any) -> None:
    client = shared.client()
    client.do(
        """
        from pathwaysutils import reshard
        one = jax.jit(lambda v: v + 1)(jax.device_put(np.arange(24.0).reshape(6, 4), devices[0]))
        every = jax.device_put(one, NamedSharding(mesh, P()))
        pair = Mesh(np.array(devices[:2]), ("y",))
        cut = reshard.reshard([every, one], [NamedSharding(pair, P("y")), NamedSharding(pair, P())])
        """
    )
    expected = [[float(n) for n in range(row * 4 + 1, row * 4 + 5)] for row in range(6)]
    assert client.do("result = [np.asarray(v).tolist() for v in cut]") == [expected, expected]


def test_a_worker_in_a_launch_still_sends_what_its_peer_needs(shared: Any) -> None:
    """The second worker has its part of the launch at once. The first one's part comes out of a
    program on the second worker that itself waits for bytes from the first."""
    client = shared.client()
    client.do(
        """
from jax.sharding import Mesh, NamedSharding, PartitionSpec
a, b = jax.devices()[0], jax.devices()[2]
pair = NamedSharding(Mesh(np.array([a, b]), ("x",)), PartitionSpec("x"))
total = jax.jit(jnp.sum)
first = jax.jit(lambda t: t[:1] * 2.0)
big = jax.device_put(np.full(8 << 20, 3.0, np.float32), a)
small = jax.device_put(np.ones(1, np.float32), b)
jax.block_until_ready(first(jax.device_put(big, b)))
"""
    )
    got = client.do(
        """
there_and_back = jax.device_put(first(jax.device_put(big, b)), a)
both = jax.make_array_from_single_device_arrays((2,), pair, [there_and_back, small])
result = float(total(both))
"""
    )
    assert got == 7.0
