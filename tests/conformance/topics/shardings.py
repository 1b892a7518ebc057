"""Arrays over meshes: replicated, partial, two-dimensional, reordered, subsets of the devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

VALUE = np.arange(64, dtype=np.float32).reshape(8, 8)
SPECS = [
    P(),
    P("x"),
    P("y"),
    P(None, "x"),
    P("x", "y"),
    P("y", "x"),
    P(("x", "y")),
    P(("y", "x")),
    P(None, ("x", "y")),
]


def _facts(array):
    shards = [
        (shard.device.id, str(shard.index), shard.replica_id) for shard in array.addressable_shards
    ]
    return {
        "shards": shards,
        "replicated": array.sharding.is_fully_replicated,
        "addressable": array.is_fully_addressable,
        "shard shape": array.sharding.shard_shape(array.shape),
    }


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_put_and_read(spec, jax_env, record):
    array = jax.device_put(VALUE, NamedSharding(jax_env.mesh((4, 2), ("x", "y")), spec))
    np.testing.assert_array_equal(np.asarray(array), VALUE)
    for shard in array.addressable_shards:
        np.testing.assert_array_equal(np.asarray(shard.data), VALUE[shard.index])
        assert shard.data.devices() == {shard.device}
    record("facts", _first_is_zero(_facts(array), jax_env))


def _first_is_zero(facts, env):
    """Device ids differ between sides; places in the list of devices do not."""
    place = {device.id: number for number, device in enumerate(env.devices)}
    facts["shards"] = [(place[device], *rest) for device, *rest in facts["shards"]]
    return facts


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_program_keeps_sharding(spec, jax_env):
    sharding = NamedSharding(jax_env.mesh((4, 2), ("x", "y")), spec)
    out = jax.jit(lambda x: x * 2 + 1)(jax.device_put(VALUE, sharding))
    np.testing.assert_array_equal(np.asarray(out), VALUE * 2 + 1)
    assert out.sharding.is_equivalent_to(sharding, 2)


def test_matmul_of_two_shardings(jax_env, record):
    mesh = jax_env.mesh((4, 2), ("x", "y"))
    left = jax.device_put(VALUE, NamedSharding(mesh, P("x", None)))
    right = jax.device_put(VALUE.T, NamedSharding(mesh, P(None, "y")))
    record("product", jax.jit(jnp.dot)(left, right), exact=False)


def test_out_shardings(jax_env):
    mesh = jax_env.mesh((2, 4), ("x", "y"))
    wanted = NamedSharding(mesh, P("y", "x"))
    out = jax.jit(lambda x: x.T, out_shardings=wanted)(VALUE)
    assert out.sharding == wanted
    np.testing.assert_array_equal(np.asarray(out), VALUE.T)


def test_constraint_inside(jax_env):
    mesh = jax_env.mesh((2, 4), ("x", "y"))

    @jax.jit
    def program(x):
        x = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P("x", "y")))
        return jax.lax.with_sharding_constraint(x.T, NamedSharding(mesh, P("y")))

    out = program(jax.device_put(VALUE, NamedSharding(mesh, P())))
    np.testing.assert_array_equal(np.asarray(out), VALUE.T)
    assert out.sharding.is_equivalent_to(NamedSharding(mesh, P("y")), 2)


def test_reordered_mesh(jax_env):
    order = [7, 2, 5, 0, 3, 6, 1, 4]
    mesh = Mesh(np.array(jax_env.devices)[order], ("x",))
    array = jax.device_put(VALUE, NamedSharding(mesh, P("x")))
    np.testing.assert_array_equal(np.asarray(array), VALUE)
    for row, place in enumerate(order):
        shard = next(s for s in array.addressable_shards if s.device == jax_env.devices[place])
        np.testing.assert_array_equal(np.asarray(shard.data), VALUE[row : row + 1])
    total = jax.jit(lambda x: x.sum(axis=0))(array)
    np.testing.assert_array_equal(np.asarray(total), VALUE.sum(axis=0))


@pytest.mark.parametrize("places", [[0, 1, 2, 3], [4, 5, 6, 7], [1, 6], [3, 4, 5], [7]], ids=str)
def test_subset_of_devices(places, jax_env, record):
    mesh = Mesh(np.array(jax_env.devices)[places], ("x",))
    value = np.arange(12 * len(places), dtype=np.float32).reshape(-1, 3)
    array = jax.device_put(value, NamedSharding(mesh, P("x")))
    out = jax.jit(lambda x: (x + 1, x.sum()))(array)
    np.testing.assert_array_equal(np.asarray(out[0]), value + 1)
    record("sum", out[1])


def test_uneven_by_padding_inside(jax_env, record):
    """JAX refuses uneven arrays at the border; inside a program the partitioner pads."""
    mesh = jax_env.mesh((8,), ("x",))
    sharding = NamedSharding(mesh, P("x"))

    @jax.jit
    def program(x):
        x = jax.lax.with_sharding_constraint(x, sharding)
        return (x * 2).sum(), x[:5]

    total, head = program(jnp.arange(13, dtype=jnp.float32))
    record("total", total)
    record("head", head)


def test_uneven_at_the_border_is_refused(jax_env, record):
    sharding = NamedSharding(jax_env.mesh((8,), ("x",)), P("x"))
    with pytest.raises(ValueError, match="evenly divide") as caught:
        jax.device_put(np.arange(13.0, dtype=np.float32), sharding)
    record("message", str(caught.value)[-60:])


def test_single_device_sharding(jax_env):
    for device in jax_env.devices:
        array = jax.device_put(VALUE, SingleDeviceSharding(device))
        assert array.devices() == {device}
        np.testing.assert_array_equal(np.asarray(array + 1), VALUE + 1)


def test_program_over_several_shardings_of_arguments(jax_env, record):
    mesh = jax_env.mesh((4, 2), ("x", "y"))
    arguments = [jax.device_put(VALUE + n, NamedSharding(mesh, s)) for n, s in enumerate(SPECS)]
    out = jax.jit(lambda *xs: sum(x * (n + 1) for n, x in enumerate(xs)))(*arguments)
    record("sum", out, exact=False)


def test_explicit_axes(jax_env, record):
    devices = np.array(jax_env.devices).reshape(4, 2)
    mesh = Mesh(devices, ("x", "y"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        x = jax.device_put(VALUE, NamedSharding(mesh, P("x", "y")))
        out = jax.jit(lambda a: jnp.sin(a) @ a.T.at[0, 0].get().reshape(1, 1).repeat(8, 0))(
            jax.sharding.reshard(x, P())
        )
    record("out", out, exact=False)
