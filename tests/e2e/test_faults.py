"""A worker that loses or swaps a launch: the client sees an error, and never a wrong value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from end_to_end import ClientError

# Two chains of two programs in turn, so that a launch of one may trade places with one of the
# other; the values tell which launches met: f adds the mean, g shifts by one device.
PROGRAMS = """
wrap = lambda f: jax.jit(jax.shard_map(f, mesh=mesh, in_specs=P("x"), out_specs=P("x")))
f = wrap(lambda v: v + lax.pmean(v, "x"))
g = wrap(lambda v: lax.ppermute(v, "x", [(n, (n + 1) % 4) for n in range(4)]))
start = np.arange(4, dtype=np.float64)
def put(): return jax.device_put(start.astype(np.float32), rows)
def expected(steps):
    a = start
    for _ in range(steps):
        a = a + a.mean()
    return np.concatenate([a, np.roll(start, steps)])
def verdict(n, a, b):
    try:
        value = np.concatenate([np.asarray(a), np.asarray(b)])
    except jax.errors.JaxRuntimeError as error:
        return "error: " + str(error).splitlines()[0][:200]
    right = np.allclose(value, expected(n + 1), rtol=1e-4)
    return "right" if right else f"wrong {n}: {value} for {expected(n + 1)}"
"""
RUN = """
a, b, result = put(), put(), []
for n in range(12):
    a, b = f(a), g(b)
    result.append(verdict(n, a, b))
    if result[-1].startswith("error"):
        break
"""
RUN_AHEAD = """
a, b, kept = put(), put(), []
for n in range(12):
    a, b = f(a), g(b)
    kept.append((a, b))
result = [verdict(n, a, b) for n, (a, b) in enumerate(kept)]
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
    client.do("a, b = put(), put()")
    client.do("for _ in range(3): a, b = f(a), g(b)")
    assert client.do("result = verdict(2, a, b)", 60.0) == "right"
