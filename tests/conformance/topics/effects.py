"""Programs that call back into the client's Python, and the order in which they do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P


def test_print(capfd, record):
    jax.jit(lambda x: jax.debug.print("x = {x}", x=x))(jnp.arange(3))
    jax.effects_barrier()
    record("text", capfd.readouterr().out.strip())


def test_pure_callback(jax_env, record):
    def host(x):
        return np.asarray(x) * 3

    shape = jax.ShapeDtypeStruct((4,), np.float32)
    program = jax.jit(lambda x: jax.pure_callback(host, shape, x) + 1)
    record("out", program(jax.device_put(np.arange(4, dtype=np.float32), jax_env.devices[6])))


def test_ordered(record):
    seen = []

    def note(x):
        seen.append(int(x))
        return np.int32(len(seen))

    def body(carry, x):
        count = io_callback(note, jax.ShapeDtypeStruct((), np.int32), x, ordered=True)
        return carry + count, None

    total, _ = jax.lax.scan(body, jnp.int32(0), jnp.arange(6))
    record("total", total)
    jax.effects_barrier()
    record("seen", seen)


def test_error_in_a_callback():
    def fails(x):
        raise ValueError("seven is too many")

    program = jax.jit(lambda x: jax.pure_callback(fails, x, x))
    with pytest.raises(jax.errors.JaxRuntimeError, match="seven is too many"):
        jax.block_until_ready(program(jnp.float32(7)))


def test_each_device_calls(jax_env):
    mesh = jax_env.mesh((8,), ("x",))
    seen = []

    def program(v):
        jax.debug.callback(lambda x: seen.append(float(x[0])), v)
        return v

    mapped = jax.shard_map(program, mesh=mesh, in_specs=P("x"), out_specs=P("x"))
    x = jax.device_put(np.arange(8, dtype=np.float32), NamedSharding(mesh, P("x")))
    jax.block_until_ready(jax.jit(mapped)(x))
    jax.effects_barrier()
    assert sorted(seen) == list(range(8))
