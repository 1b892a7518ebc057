"""Several clients at once: right results for each, and nothing left of one that dies."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

TRAIN = """
rng = np.random.default_rng({seed})
x = rng.standard_normal((16, 4)).astype(np.float32)
y = (x @ np.array([[1.0], [-2.0], [0.5], [{seed}]])).astype(np.float32)
batch = jax.device_put((x, y), rows)
w = jax.device_put(np.zeros((4, 1), np.float32), NamedSharding(mesh, P()))
loss = lambda w, x, y: jnp.mean((x @ w - y) ** 2)
@(lambda f: jax.jit(f, donate_argnums=0))
def step(w, x, y):
    value, gradient = jax.value_and_grad(loss)(w, x, y)
    return w - 0.1 * gradient, value
losses = []
for _ in range({steps}):
    w, value = step(w, *batch)
    losses.append(value)
result = [float(v) for v in losses]
"""


def _expected(seed: int, steps: int) -> list[float]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((16, 4)).astype(np.float32).astype(np.float64)
    y = x @ np.array([[1.0], [-2.0], [0.5], [seed]])
    w, losses = np.zeros((4, 1)), []
    for _ in range(steps):
        error = x @ w - y
        losses.append(float(np.mean(error**2)))
        w = w - 0.1 * 2 * x.T @ error / len(x)
    return losses


def test_two_clients_train_at_once(shared: Any) -> None:
    clients = [shared.client() for _ in range(2)]
    for seed, client in enumerate(clients):
        client.begin(TRAIN.format(seed=seed, steps=40))
    for seed, client in enumerate(clients):
        np.testing.assert_allclose(client.finish(90.0), _expected(seed, 40), rtol=2e-3, atol=1e-5)


def test_a_client_that_dies_frees_all_it_had(shared: Any) -> None:
    stays, dies = shared.client(), shared.client()
    stays.do("kept = jax.device_put(np.arange(8, dtype=np.float32), rows) + 1")
    stays.do("kept.block_until_ready()")
    before = shared.wait_for("two sessions", lambda s: len(s["sessions"]) == 2)
    dies.do("big = [jax.device_put(np.ones((4, 1 << 16), np.float32), rows) for _ in range(8)]")
    dies.do("jax.block_until_ready([b + 1 for b in big])")
    held = shared.wait_for("buffers of both", lambda s: _bytes(s) >= _bytes(before) + (8 << 20))
    assert held["gauges"]["buffers"] > before["gauges"]["buffers"]
    # It dies with work under way and nothing said.
    dies.begin("while True: big = [jnp.roll(b, 1) for b in big]")
    dies.kill()
    after = shared.wait_for("one session", lambda s: len(s["sessions"]) == 1)
    assert _bytes(after) <= _bytes(before)
    assert stays.do("result = np.asarray(kept * 2).tolist()") == [2.0 * (n + 1) for n in range(8)]


def test_clients_that_die_far_ahead_leave_the_head_alone(fresh: Callable[..., Any]) -> None:
    """The head had stopped reading them; what wakes it to read on comes after their end."""
    cluster = fresh(slices=1, hosts_per_slice=1, devices_per_host=2)
    head = cluster.pids()["head"]
    for _ in range(2):
        clients = [cluster.client() for _ in range(3)]
        for client in clients:
            client.do("f = jax.jit(lambda a: lax.fori_loop(0, 30, lambda i, v: v @ v * 0.5, a))")
            client.do("y = f(jax.device_put(np.eye(128, dtype=np.float32), devices[0]))")
            client.begin("while True: y = f(y)")
        time.sleep(1.5)  # what they send is more than is read by now
        for client in clients:
            client.kill()
        cluster.wait_for("no sessions", lambda s: not s["sessions"], 60.0)
    assert cluster.pids()["head"] == head
    assert cluster.client().do("result = float((jax.numpy.arange(4.0) * 2).sum())") == 12.0


def test_a_client_that_ends_frees_all_it_had(shared: Any) -> None:
    client = shared.client()
    client.do("kept = [jax.device_put(np.ones(8, np.float32), rows) for _ in range(20)]")
    client.do("jax.block_until_ready(kept)")
    client.close()
    after = shared.wait_for("no session", lambda s: not s["sessions"])
    assert after["gauges"]["buffers"] == 0
    assert after["gauges"]["buffer_bytes"] == 0


def test_one_client_does_not_see_anothers_mistake(shared: Any) -> None:
    good, bad = shared.client(), shared.client()
    good.do("x = jax.device_put(np.ones(8, np.float32), rows)")
    bad.begin(
        """
        caught = 0
        for n in range(10):
            try:
                jax.block_until_ready(jax.jit(lambda: jnp.zeros((n + 1) << 43, jnp.float32))())
            except jax.errors.JaxRuntimeError:
                caught += 1
        result = caught
        """
    )
    total = good.do("for _ in range(50): x = jax.jit(lambda a: a + 1)(x)\nresult = float(x.sum())")
    assert total == 8 * 51
    assert bad.finish() == 10


def _bytes(status: dict[str, Any]) -> int:
    return int(status["gauges"]["buffer_bytes"])
