"""A worker that loses or swaps a launch: the client sees an error, and never a wrong value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from end_to_end import ClientError

# Two programs in turn, the values of which tell which launches met: f adds the mean, g shifts.
PROGRAMS = """
wrap = lambda f: jax.jit(jax.shard_map(f, mesh=mesh, in_specs=P("x"), out_specs=P("x")))
f = wrap(lambda v: v + lax.pmean(v, "x"))
g = wrap(lambda v: lax.ppermute(v, "x", [(n, (n + 1) % 4) for n in range(4)]))
def expected(x, steps):
    for _ in range(steps):
        x = np.roll(x + x.mean(), 1)
    return x
start = np.arange(4, dtype=np.float64)
"""
RUN = """
x = jax.device_put(start.astype(np.float32), rows)
seen = []
for n in range(12):
    x = g(f(x))
    try:
        value = np.asarray(x)
        right = np.allclose(value, expected(start, n + 1), rtol=1e-4)
        seen.append("right" if right else f"wrong {n}: {value} for {expected(start, n + 1)}")
    except jax.errors.JaxRuntimeError as error:
        seen.append("error: " + str(error).splitlines()[0][:200])
        break
result = seen
"""
RUN_AHEAD = """
x = jax.device_put(start.astype(np.float32), rows)
kept = []
for n in range(12):
    x = g(f(x))
    kept.append(x)
seen = []
for n, x in enumerate(kept):
    try:
        right = np.allclose(np.asarray(x), expected(start, n + 1), rtol=1e-4)
        seen.append("right" if right else f"wrong {n}")
    except jax.errors.JaxRuntimeError as error:
        seen.append("error: " + str(error).splitlines()[0][:200])
result = seen
"""


@pytest.mark.parametrize("fault", ["skip_launch=9", "swap_launch=9", "oom_launch=9"])
@pytest.mark.parametrize("run", [RUN, RUN_AHEAD], ids=["read each", "read at the end"])
def test_an_error_and_no_wrong_value(fault: str, run: str, fresh: Callable[..., Any]) -> None:
    cluster = fresh(slices=1, hosts_per_slice=2, devices_per_host=2, faults={1: fault})
    client = cluster.client()
    client.do(PROGRAMS)
    try:
        seen = client.do(run, 60.0)
    except ClientError as error:  # the loop itself was refused, which is an error as well
        seen = [f"error: {error}"]
    assert not [text for text in seen if text.startswith("wrong")], seen
    assert [text for text in seen if text.startswith("error")], seen
    if fault.startswith("oom"):
        assert any("RESOURCE_EXHAUSTED" in text for text in seen), seen
    # Afterwards the same session computes rightly again.
    client.do("x = jax.device_put(start.astype(np.float32), rows)")
    client.do("for _ in range(3): x = g(f(x))")
    assert client.do("result = bool(np.allclose(np.asarray(x), expected(start, 3)))", 60.0)
