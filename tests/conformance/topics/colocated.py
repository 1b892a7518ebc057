"""jax.experimental.colocated_python: functions and objects that run beside the arrays."""

import threading

import jax
import numpy as np
import pytest
from jax.experimental import colocated_python
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

VALUE = np.arange(32, dtype=np.float32).reshape(8, 4)


def _rows(env):
    return jax.device_put(VALUE, NamedSharding(env.mesh((8,), ("x",)), P("x")))


def test_function_over_all_workers(jax_env, record):
    @colocated_python.colocated_python
    def twice(x):
        return jax.make_array_from_single_device_arrays(
            x.shape, x.sharding, [s.data * 2 for s in x.addressable_shards]
        )

    x = _rows(jax_env)
    out = twice(x)
    assert out.sharding == x.sharding
    record("first", out)
    # From the second call on the client names the results and waits for nothing.
    record("again", twice(twice(x)))
    # Its result is an array like any other: collectives over all workers take it.
    record("sum", jax.jit(lambda a: a.sum(0))(twice(x)))


def test_arithmetic_on_whole_arrays(jax_env, record):
    @colocated_python.colocated_python
    def f(x, y):
        return {"sum": x + y, "more": (x * 3, y.astype(np.int32))}

    x = _rows(jax_env)
    out = f(x, x)
    record("sum", out["sum"])
    record("more", out["more"][0])
    record("ints", out["more"][1])


def test_where_it_runs(jax_env):
    @colocated_python.colocated_python
    def shards(x):
        mine = len(x.addressable_shards)
        return jax.make_array_from_single_device_arrays(
            x.shape, x.sharding, [s.data * 0 + mine for s in x.addressable_shards]
        )

    out = np.asarray(shards(_rows(jax_env)))
    assert (out == (8 if jax_env.side == "local" else 4)).all()


def test_on_the_last_device(jax_env, record):
    @colocated_python.colocated_python
    def plus(x):
        return x + 1

    device = jax_env.devices[-1]
    out = plus(jax.device_put(np.int32(41), device))
    assert out.devices() == {device}
    record("answer", out)


def test_declared_outputs_and_other_device_orders(jax_env, record):
    devices = jax_env.devices[:2]

    @colocated_python.colocated_python
    def crossed(x, y):
        arrays = [
            x.addressable_shards[1].data + y.addressable_shards[0].data,
            x.addressable_shards[0].data + y.addressable_shards[1].data,
        ]
        return jax.make_array_from_single_device_arrays(y.shape, y.sharding, arrays)

    x = jax.device_put(np.array([0, 2]), NamedSharding(Mesh(devices, "x"), P("x")))
    y = jax.device_put(np.array([4, 8]), NamedSharding(Mesh(devices[::-1], "x"), P("x")))
    crossed = crossed.specialize(devices=devices, out_specs_fn=lambda x, y: y)
    record("crossed", crossed(x, y))


def test_objects_keep_their_state(jax_env, record):
    @colocated_python.colocated_python_class
    class Counter:
        def __init__(self, start):
            self.count = start

        def add(self, x):
            self.count = self.count + np.asarray(x.addressable_shards[0].data).item()
            return x + self.count

    counter = Counter(100)
    x = jax.device_put(np.int32(1), jax_env.devices[5])
    record("values", [int(counter.add(x)) for _ in range(3)])


def test_text_in_and_out(jax_env):
    @colocated_python.colocated_python
    def upper(x):
        up = np.vectorize(str.upper, otypes=[np.dtypes.StringDType()])
        return jax.make_array_from_single_device_arrays(
            x.shape,
            x.sharding,
            [jax.device_put(up(np.asarray(s.data)), s.device) for s in x.addressable_shards],
        )

    words = np.array([f"word {i}" for i in range(8)], np.dtypes.StringDType())
    x = jax.device_put(words, NamedSharding(jax_env.mesh((8,), ("x",)), P("x")))
    np.testing.assert_array_equal(np.asarray(upper(x)), [f"WORD {i}" for i in range(8)])


def test_mistakes_are_told_with_their_words(jax_env):
    @colocated_python.colocated_python
    def fails(x):
        raise KeyError("no such thing as this")

    x = jax.device_put(np.float32(1), jax_env.devices[6])
    with pytest.raises(Exception, match="no such thing as this") as told:
        np.asarray(fails(x))
    assert "KeyError" in (type(told.value).__name__ + str(told.value))
    for lost in ("DATA_LOSS", "NOT_FOUND", "INTERNAL", "DEADLINE_EXCEEDED"):
        assert lost not in str(told.value)
    assert float(jax.jit(lambda a: a + 1)(x)) == 2.0


def test_nothing_waits_for_a_long_function(jax_env):
    if jax_env.side == "local":
        pytest.skip("without a cluster, the function runs in this thread")

    @colocated_python.colocated_python
    def hold(x):
        colocated_python._held = threading.Event()
        colocated_python._held.wait(30)
        return x

    @colocated_python.colocated_python
    def release(x):
        colocated_python._held.set()
        return x

    x = jax.device_put(np.float32(1), jax_env.devices[0])
    held = hold.specialize(out_specs_fn=lambda x: x)(x)
    # Programs on the same device, and other threads' functions, go on.
    assert float(jax.jit(lambda a: a + 1)(x)) == 2.0
    out = []
    thread = threading.Thread(target=lambda: out.append(jax.device_get(release(x))))
    thread.start()
    thread.join(20)
    assert out
    assert float(held) == 1.0
