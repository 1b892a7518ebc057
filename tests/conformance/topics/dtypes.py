"""Every element type goes in, through a program, and out again; empty and scalar arrays too."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

NUMBERS = [
    "int8",
    "int16",
    "int32",
    "uint8",
    "uint16",
    "uint32",
    "float16",
    "float32",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3b11fnuz",
    "complex64",
    "int4",
    "uint4",
]


def _dtype(name):
    return np.dtype(getattr(ml_dtypes, name, None) or name)


def _values(name):
    return (np.arange(16) % 7).astype(_dtype(name)).reshape(8, 2)


@pytest.mark.parametrize("name", [*NUMBERS, "bool"])
def test_round_trip(name, jax_env, record):
    value = _values(name)
    one = jax.device_put(value, jax_env.devices[5])
    np.testing.assert_array_equal(np.asarray(one), value)
    spread = jax.device_put(value, NamedSharding(jax_env.mesh((8,), ("x",)), P("x")))
    assert spread.dtype == value.dtype
    np.testing.assert_array_equal(np.asarray(spread), value)
    record("value", spread)


@pytest.mark.parametrize("name", NUMBERS)
def test_arithmetic(name, jax_env, record):
    value = jax.device_put(_values(name), NamedSharding(jax_env.mesh((8,), ("x",)), P("x")))
    out = jax.jit(lambda x: (x + x.astype(x.dtype), jnp.flip(x, 0)))(value)
    assert out[0].dtype == value.dtype
    record("sum", out[0])
    record("flip", out[1])


def test_convert_between_all(record):
    source = jnp.arange(6, dtype=jnp.float32) - 2
    for name in NUMBERS:
        if name in ("uint4", "uint8", "uint16", "uint32"):
            continue  # what a negative number becomes is the platform's choice
        record(name, jax.jit(lambda x, n=name: x.astype(_dtype(n)))(source))


@pytest.mark.parametrize("shape", [(0,), (0, 4), (8, 0), (3, 0, 2)])
def test_empty(shape, jax_env, record):
    x = jnp.zeros(shape, jnp.float32)
    assert np.asarray(x).shape == shape
    record("sum", jax.jit(jnp.sum)(x))
    moved = jax.device_put(x, jax_env.devices[7])
    record("twice", jax.jit(lambda a: jnp.concatenate([a, a], 0))(moved))


def test_empty_sharded(jax_env, record):
    sharding = NamedSharding(jax_env.mesh((8,), ("x",)), P("x"))
    x = jax.device_put(np.zeros((8, 0), np.int32), sharding)
    record("out", jax.jit(lambda a: a.sum(axis=1))(x))


def test_scalars(jax_env, record):
    for name in NUMBERS:
        x = jax.device_put(np.array(3).astype(_dtype(name)), jax_env.devices[6])
        assert x.shape == ()
        record(name, jax.jit(lambda a: a + a)(x))
    record("item", jnp.float32(2.5).item())
    record("int", int(jnp.int32(7)))
    record("truth", bool(jnp.array(True)))


def test_weak_types(record):
    def kind(x):
        return f"{x.dtype} weak={x.weak_type}"

    add = jax.jit(lambda a, b: a + b)
    record("python scalars", kind(add(1, 2.0)))
    record("keeps bfloat16", kind(add(jnp.ones(2, jnp.bfloat16), 2.0)))
    record("keeps int8", kind(add(jnp.ones(2, jnp.int8), 2)))
    record("returned", kind(jax.jit(lambda x: x)(3)))


def test_x64(jax_env, record):
    with jax.enable_x64(True):
        for name in ("float64", "int64", "uint64", "complex128"):
            x = jax.device_put(np.arange(8).astype(name) * 3, jax_env.devices[4])
            assert x.dtype == name
            record(name, jax.jit(lambda a: a * a + 1)(x))
        record("tiny step", jnp.float64(1) + 1e-12)
    assert jnp.arange(3.0).dtype == jnp.float32


def test_special_floats(record):
    x = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-40], np.float32)
    record("same bits", jnp.asarray(x))
    record("is finite", jax.jit(jnp.isfinite)(x))
