"""Host callbacks and the client's repairs through a real cluster of two workers."""

from __future__ import annotations

from typing import Any

PRELUDE = """
from functools import partial
import time
import numpy as np
import jax, jax.numpy as jnp
from jax.experimental import io_callback
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
every_other = max(1, len(jax.devices()) // 4)
everywhere = Mesh(np.array(jax.devices()[::every_other]), "d")  # four, of both workers
split = NamedSharding(everywhere, P("d"))
def like(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
"""


def printed(cluster: Any, code: str) -> list[str]:
    done = cluster.run(PRELUDE + code)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_callbacks_run_here_once_or_on_every_device(cluster: Any) -> None:
    lines = printed(
        cluster,
        """
double = lambda x: jax.pure_callback(lambda x: np.asarray(x) * 2, like(x), x)
@jax.jit
@partial(jax.shard_map, mesh=everywhere, in_specs=P("d"), out_specs=P())
def total(x):
    return jax.lax.psum(double(x), "d")
print(total(jnp.arange(4.0)))
whole = []
@partial(jax.jit, out_shardings=split)
def once(x):
    jax.debug.callback(lambda x: whole.append(np.asarray(x).tolist()), x)
    return x + 1
print(once(jax.device_put(jnp.arange(4), split)))
jax.effects_barrier()
print(whole)
""",
    )
    assert lines == ["[12.]", "[1 2 3 4]", "[[0, 1, 2, 3]]"]


def test_ordered_callbacks_errors_and_the_end_of_the_program(cluster: Any) -> None:
    lines = printed(
        cluster,
        """
log = []
@jax.jit
def f(x):
    def step(c, i):
        io_callback(lambda i: log.append(int(i)), None, i, ordered=True)
        return c + i, None
    return jax.lax.scan(step, x, jnp.arange(10))[0]
print(f(0), f(0))
jax.effects_barrier()
print(log == list(range(10)) * 2)
def boom(x):
    raise ValueError("a reason of mine")
try:
    jax.block_until_ready(jax.jit(lambda x: jax.pure_callback(boom, like(x), x))(jnp.float32(1)))
except Exception as error:
    lost = ("DATA_LOSS", "DEADLINE_EXCEEDED", "NOT_FOUND", "INTERNAL")
    print("a reason of mine" in str(error) and not any(code in str(error) for code in lost))
for i in range(3):
    jax.jit(lambda x: jax.debug.callback(lambda x: (time.sleep(0.1), print("late", x)), x))(i)
""",
    )
    assert lines[:3] == ["45 45", "True", "True"]
    assert sorted(lines[3:]) == ["late 0", "late 1", "late 2"]


def test_a_callback_may_use_remote_arrays(cluster: Any) -> None:
    lines = printed(
        cluster,
        """
first, last = jax.devices()[0], jax.devices()[-1]
remote = jax.device_put(jnp.arange(3.0), last)
def ask(x):
    there = jax.device_put(np.asarray(x), last)
    return np.asarray(there + remote)
f = jax.jit(lambda x: jax.pure_callback(ask, like(x), x))
print(f(jax.device_put(jnp.ones(3), first)))
""",
    )
    assert lines == ["[1. 2. 3.]"]


def test_a_client_that_dies_in_a_callback_harms_nobody(cluster: Any) -> None:
    died = cluster.run(
        PRELUDE
        + """
import os
jax.jit(lambda x: jax.pure_callback(lambda x: os._exit(7), like(x), x))(jnp.float32(1))
time.sleep(60)
"""
    )
    assert died.returncode == 7
    assert printed(
        cluster, "print(jax.jit(lambda x: x + 1)(jax.device_put(jnp.arange(4), split)))"
    ) == ["[1 2 3 4]"]


def test_arrays_cross_between_the_cluster_and_this_machine(cluster: Any) -> None:
    lines = printed(
        cluster,
        """
here = jax.devices("cpu")[0]
print(jax.default_backend() != "" and here not in jax.devices())
sharded = jax.device_put(jnp.arange(8), split)
print(jax.device_put(sharded, here).devices() == {here}, jax.device_put(sharded, here))
key = jax.device_put(jax.random.key(3), here)
print(key.devices() == {here}, jax.random.key_data(jax.device_put(key, jax.devices()[0])))
print(jax.device_put(jax.device_put(jnp.arange(4), here), split))
print(jnp.asarray(np.arange(6)[::-2]), jnp.asarray(np.broadcast_to(np.int32(7), (2, 2))).tolist())
""",
    )
    assert lines == [
        "True",
        "True [0 1 2 3 4 5 6 7]",
        "True [0 3]",
        "[0 1 2 3]",
        "[5 3 1] [[7, 7], [7, 7]]",
    ]


def test_dlpack_costs_and_sharding_inspection(cluster: Any) -> None:
    lines = printed(
        cluster,
        """
x = jnp.arange(5.0)
y = np.from_dlpack(x)
print(y, y.flags.writeable or True, [int(n) for n in x.__dlpack_device__()])
try:
    x.__dlpack__(copy=False)
except BufferError as error:
    print("without a copy" in str(error))
print(jax.jit(lambda x: x * 2).lower(x).cost_analysis()["flops"], jax.devices()[0].memory_stats())
look = lambda x: (jax.debug.inspect_array_sharding(x, callback=lambda s: print(s.spec)), x + 1)[1]
print(jax.jit(look, in_shardings=split)(jnp.arange(8.0)))
jax.debug.inspect_array_sharding(jax.device_put(jnp.arange(8.0), split),
                                 callback=lambda s: print("outside", s.spec))
""",
    )
    assert lines == [
        "[0. 1. 2. 3. 4.] True [1, 0]",
        "True",
        "5.0 None",
        "P('d',)",
        "[1. 2. 3. 4. 5. 6. 7. 8.]",
        "outside P('d',)",
    ]
