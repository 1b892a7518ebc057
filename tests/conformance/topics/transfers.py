"""Arrays that move: between hosts, devices, shardings and meshes; arrays made from pieces."""

import ctypes
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

VALUE = np.arange(64, dtype=np.float32).reshape(8, 8)


def test_device_to_device_across_workers(jax_env):
    array = jax.device_put(VALUE, jax_env.devices[0])
    for place in (1, 4, 7, 2, 5, 0):
        array = jax.device_put(array, jax_env.devices[place]) + 1
        assert array.devices() == {jax_env.devices[place]}
    np.testing.assert_array_equal(np.asarray(array), VALUE + 6)


def test_between_shardings(jax_env):
    mesh = jax_env.mesh((4, 2), ("x", "y"))
    array = jax.device_put(VALUE, NamedSharding(mesh, P("x", "y")))
    for spec in (P(), P("y", "x"), P(None, ("x", "y")), P("x"), P(("y", "x"))):
        array = jax.device_put(array, NamedSharding(mesh, spec))
        assert array.sharding.spec == spec
        np.testing.assert_array_equal(np.asarray(array), VALUE)


def test_onto_a_reordered_mesh(jax_env):
    first = jax_env.mesh((8,), ("x",))
    second = Mesh(np.array(jax_env.devices)[::-1], ("x",))
    array = jax.device_put(VALUE, NamedSharding(first, P("x")))
    moved = jax.device_put(array, NamedSharding(second, P("x")))
    np.testing.assert_array_equal(np.asarray(moved), VALUE)
    assert next(iter(moved.addressable_shards)).data.shape == (1, 8)
    both = jax.jit(lambda x: x * 2)(moved)
    np.testing.assert_array_equal(np.asarray(both), VALUE * 2)


def test_onto_other_devices(jax_env):
    low = Mesh(np.array(jax_env.devices[:4]), ("x",))
    high = Mesh(np.array(jax_env.devices[4:]), ("x",))
    array = jax.device_put(VALUE, NamedSharding(low, P("x")))
    for mesh in (high, low, high):
        array = jax.jit(lambda x: x + 1)(jax.device_put(array, NamedSharding(mesh, P("x"))))
    np.testing.assert_array_equal(np.asarray(array), VALUE + 3)


def test_onto_a_larger_and_a_smaller_mesh(jax_env):
    two = Mesh(np.array(jax_env.devices[3:5]), ("x",))
    eight = jax_env.mesh((8,), ("x",))
    array = jax.device_put(VALUE, NamedSharding(two, P("x")))
    wide = jax.device_put(array, NamedSharding(eight, P("x")))
    np.testing.assert_array_equal(np.asarray(wide), VALUE)
    narrow = jax.device_put(wide, NamedSharding(two, P(None, "x")))
    np.testing.assert_array_equal(np.asarray(narrow), VALUE)


def test_committed_to_two_places_is_refused(jax_env):
    one = jax.device_put(VALUE, jax_env.devices[0])
    other = jax.device_put(VALUE, jax_env.devices[5])
    with pytest.raises(ValueError, match="incompatible devices"):
        jax.jit(lambda a, b: a + b)(one, other)


def test_tree_put(jax_env):
    sharding = NamedSharding(jax_env.mesh((8,), ("x",)), P("x"))
    tree = {"a": VALUE, "b": [VALUE.astype(np.int32), jnp.ones(8)]}
    out = jax.device_put(tree, sharding)
    np.testing.assert_array_equal(np.asarray(out["b"][0]), VALUE.astype(np.int32))
    back = jax.device_get(out)
    assert isinstance(back["a"], np.ndarray)


def test_large_round_trip(jax_env):
    value = np.random.default_rng(1).standard_normal((1024, 2048), np.float32)  # 8 MiB
    sharding = NamedSharding(jax_env.mesh((8,), ("x",)), P("x"))
    np.testing.assert_array_equal(np.asarray(jax.device_put(value, sharding)), value)


def test_many_small_puts(jax_env):
    sharding = NamedSharding(jax_env.mesh((8,), ("x",)), P("x"))
    arrays = [jax.device_put(np.full(8, n, np.int32), sharding) for n in range(60)]
    total = jax.jit(lambda *xs: sum(xs))(*arrays)
    np.testing.assert_array_equal(np.asarray(total), np.full(8, sum(range(60))))


def test_odd_strides_of_the_host(jax_env):
    for view in (VALUE[::-1], VALUE[:, ::2], VALUE.T, np.broadcast_to(np.float32(3), (8, 2))):
        sharding = NamedSharding(jax_env.mesh((8,), ("x",)), P())
        np.testing.assert_array_equal(np.asarray(jax.device_put(view, sharding)), view)
        np.testing.assert_array_equal(np.asarray(jax.jit(lambda x: x + 1)(view)), view + 1)


def test_make_array_from_callback(jax_env):
    sharding = NamedSharding(jax_env.mesh((4, 2), ("x", "y")), P("y", "x"))
    asked = []

    def part(index):
        asked.append(index)
        return VALUE[index]

    array = jax.make_array_from_callback(VALUE.shape, sharding, part)
    np.testing.assert_array_equal(np.asarray(array), VALUE)
    assert len(asked) == 8


def test_make_array_from_single_device_arrays(jax_env):
    sharding = NamedSharding(jax_env.mesh((8,), ("x",)), P("x"))
    pieces = [jax.device_put(VALUE[n : n + 1], d) for n, d in enumerate(jax_env.devices)]
    array = jax.make_array_from_single_device_arrays(VALUE.shape, sharding, pieces)
    np.testing.assert_array_equal(np.asarray(array), VALUE)
    out = jax.jit(lambda x: x + 1)(array)
    again = [shard.data for shard in out.addressable_shards]
    np.testing.assert_array_equal(np.asarray(again[6]), VALUE[6:7] + 1)


def test_make_array_from_process_local_data(jax_env):
    sharding = NamedSharding(jax_env.mesh((8,), ("x",)), P("x"))
    array = jax.make_array_from_process_local_data(sharding, VALUE)
    np.testing.assert_array_equal(np.asarray(array), VALUE)


def test_copies_are_copies(jax_env):
    source = jax.device_put(VALUE, jax_env.devices[2])
    copied = jnp.array(source, copy=True)
    shared = jax.device_put(source, jax_env.devices[2])
    source.delete()
    np.testing.assert_array_equal(np.asarray(copied), VALUE)
    # One that only shares the buffer dies with it, and must not show anything else.
    with pytest.raises(RuntimeError, match="deleted"):
        np.asarray(shared)


def test_the_host_array_may_change_afterwards(jax_env):
    value = VALUE.copy()
    array = jax.device_put(jnp.array(value), jax_env.devices[3])
    value[:] = -1
    np.testing.assert_array_equal(np.asarray(array), VALUE)


def test_indexing_and_iteration(jax_env, record):
    array = jax.device_put(VALUE, NamedSharding(jax_env.mesh((8,), ("x",)), P("x")))
    record("row", array[3])
    record("element", array[2, 5])
    record("rows", [float(row[0]) for row in array])
    record("updated", array.at[1, 2].set(-1.0))


def test_pickle(jax_env):
    import pickle

    array = jax.device_put(VALUE, NamedSharding(jax_env.mesh((8,), ("x",)), P("x")))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(array)), VALUE)


def test_async_host_copy(jax_env):
    array = jax.device_put(VALUE, NamedSharding(jax_env.mesh((8,), ("x",)), P("x"))) + 1
    array.copy_to_host_async()
    np.testing.assert_array_equal(np.asarray(array), VALUE + 1)


def test_dlpack_from_and_to_the_host(jax_env, record):
    source = np.arange(12, dtype=np.float32).reshape(3, 4)
    for number, copy in enumerate((None, True)):
        array = jnp.from_dlpack(source, device=jax_env.devices[5], copy=copy)
        assert array.devices() == {jax_env.devices[5]}
        record(f"in {number}", array)
        record(f"out {number}", np.from_dlpack(array + 1))
    assert not hasattr(array, "__cuda_array_interface__")


def test_buffer_pointer(jax_env):
    array = jax.device_put(VALUE, jax_env.devices[5])
    address = array.unsafe_buffer_pointer()
    there = (ctypes.c_char * array.nbytes).from_address(address)
    assert bytes(there) == VALUE.tobytes()
    assert array.unsafe_buffer_pointer() == address
    copy = jnp.array(array, copy=True)
    assert copy.unsafe_buffer_pointer() != address
    split = jax.device_put(VALUE, NamedSharding(jax_env.mesh((8,), ("x",)), P("x")))
    with pytest.raises(jax.errors.JaxRuntimeError):
        split.unsafe_buffer_pointer()


def test_buffer_protocol(jax_env, record):
    if jax_env.side == "cluster" and sys.version_info < (3, 12):
        pytest.skip("before Python 3.12 only C can offer a buffer")
    array = jax.device_put(VALUE, jax_env.devices[5])
    view = memoryview(array)
    record("bytes", view.tobytes().hex())
    record("shape", view.shape)
    assert view.readonly
    array.delete()
    assert view.tobytes() == VALUE.tobytes()
    with pytest.raises(BufferError, match="BF16"):
        memoryview(jnp.zeros(3, jnp.bfloat16))
    with pytest.raises(BufferError):
        memoryview(jax.device_put(VALUE, NamedSharding(jax_env.mesh((8,), ("x",)), P("x"))))
