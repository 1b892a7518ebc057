"""Collectives over all eight devices, which in a cluster belong to two workers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

VALUE = np.arange(128, dtype=np.float32).reshape(16, 8)

PROGRAMS = {
    "psum": (lambda x: lax.psum(x, "x"), P("x"), P()),
    "pmax": (lambda x: lax.pmax(x, "x"), P("x"), P()),
    "pmin": (lambda x: lax.pmin(x, "x"), P("x"), P()),
    "pmean": (lambda x: lax.pmean(x, "x"), P("x"), P()),
    "gather": (lambda x: lax.all_gather(x, "x", tiled=True), P("x"), P("x")),
    "scatter": (lambda x: lax.psum_scatter(x, "x", tiled=True), P(None), P("x")),
    "exchange": (lambda x: lax.all_to_all(x, "x", 1, 0, tiled=True), P("x"), P(None, "x")),
    "shift": (
        lambda x: lax.ppermute(x, "x", [(n, (n + 3) % 8) for n in range(8)]),
        P("x"),
        P("x"),
    ),
    "half shift": (
        lambda x: lax.ppermute(x, "x", [(0, 7), (5, 2)]),
        P("x"),
        P("x"),
    ),
    "index": (lambda x: x + lax.axis_index("x"), P("x"), P("x")),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_shard_map(name, jax_env, record):
    program, inward, outward = PROGRAMS[name]
    mesh = jax_env.mesh((8,), ("x",))
    mapped = jax.shard_map(
        program, mesh=mesh, in_specs=inward, out_specs=outward, check_vma=False
    )
    x = jax.device_put(VALUE, NamedSharding(mesh, inward))
    record("out", jax.jit(mapped)(x), exact=False)


@pytest.mark.parametrize("axis", ["x", "y", ("x", "y")], ids=str)
def test_over_one_axis_of_two(axis, jax_env, record):
    mesh = jax_env.mesh((2, 4), ("x", "y"))
    mapped = jax.shard_map(
        lambda v: lax.psum(v, axis), mesh=mesh, in_specs=P("x", "y"), out_specs=P("x", "y"),
        check_vma=False,
    )
    record("sum", jax.jit(mapped)(VALUE), exact=False)


def test_groups_that_cross_workers(jax_env, record):
    """A mesh that pairs device n with device n + 4, which lies on the other worker."""
    devices = np.array(jax_env.devices).reshape(2, 4).T
    mesh = jax.sharding.Mesh(devices, ("pair", "member"))
    mapped = jax.shard_map(
        lambda v: lax.psum(v, "member"), mesh=mesh, in_specs=P("pair", "member"),
        out_specs=P("pair"),
    )
    record("sum", jax.jit(mapped)(VALUE), exact=False)


def test_subset_that_crosses_workers(jax_env, record):
    mesh = jax.sharding.Mesh(np.array(jax_env.devices[2:6]), ("x",))
    mapped = jax.shard_map(
        lambda v: lax.psum(v, "x"), mesh=mesh, in_specs=P("x"), out_specs=P()
    )
    record("sum", jax.jit(mapped)(VALUE), exact=False)


def test_several_in_one_program(jax_env, record):
    mesh = jax_env.mesh((8,), ("x",))

    def program(v):
        total = lax.psum(v, "x")
        turned = lax.ppermute(v, "x", [(n, (n + 1) % 8) for n in range(8)])
        return total / 8 + turned, lax.all_gather(v.sum(), "x")

    mapped = jax.shard_map(
        program, mesh=mesh, in_specs=P("x"), out_specs=(P("x"), P()), check_vma=False
    )
    first, second = jax.jit(mapped)(VALUE)
    record("first", first, exact=False)
    record("second", second, exact=False)


def test_many_launches_in_a_row(jax_env):
    mesh = jax_env.mesh((8,), ("x",))
    mapped = jax.jit(
        jax.shard_map(lambda v: v + lax.pmean(v, "x"), mesh=mesh, in_specs=P("x"), out_specs=P("x"))
    )
    x = jax.device_put(np.ones(8, np.float32), NamedSharding(mesh, P("x")))
    for _ in range(20):
        x = mapped(x)
    np.testing.assert_array_equal(np.asarray(x), np.full(8, 2.0**20))


def test_two_programs_in_turn(jax_env):
    """Their collectives must not meet each other's."""
    mesh = jax_env.mesh((8,), ("x",))
    wrap = functools.partial(jax.shard_map, mesh=mesh, in_specs=P("x"), out_specs=P("x"))
    double = jax.jit(wrap(lambda v: v + lax.psum(v, "x") / 8))
    shift = jax.jit(wrap(lambda v: lax.ppermute(v, "x", [(n, (n + 1) % 8) for n in range(8)])))
    a = jax.device_put(np.arange(8, dtype=np.float32), NamedSharding(mesh, P("x")))
    b = jax.device_put(np.full(8, 3.0, np.float32), NamedSharding(mesh, P("x")))
    for _ in range(8):
        a, b = shift(a), double(b)
    np.testing.assert_array_equal(np.asarray(a), np.arange(8))
    np.testing.assert_array_equal(np.asarray(b), np.full(8, 3.0 * 2**8))


def test_pmap(jax_env, record):
    x = np.arange(24, dtype=np.float32).reshape(8, 3)
    record("sum", jax.pmap(lambda v: lax.psum(v, "i"), axis_name="i")(x), exact=False)
    record("own", jax.pmap(lambda v: v * lax.axis_index("i"), axis_name="i")(x))
    part = jax.pmap(lambda v: v + 1, devices=jax_env.devices[3:5])(x[:2])
    record("two devices", part)


def test_pmap_gradient(jax_env, record):
    w = np.ones((3,), np.float32)
    x = np.arange(24, dtype=np.float32).reshape(8, 3)

    @functools.partial(jax.pmap, axis_name="i", in_axes=(None, 0))
    def gradient(w, x):
        return lax.pmean(jax.grad(lambda w: jnp.sum((x * w) ** 2))(w), "i")

    record("gradient", gradient(w, x), exact=False)


def test_gradient_through_collectives(jax_env, record):
    mesh = jax_env.mesh((8,), ("x",))

    def loss(v):
        mapped = jax.shard_map(
            lambda part: lax.psum((part**2).sum(), "x"), mesh=mesh, in_specs=P("x"), out_specs=P()
        )
        return mapped(v)

    value, gradient = jax.jit(jax.value_and_grad(loss))(VALUE)
    record("value", value, exact=False)
    record("gradient", gradient, exact=False)


def test_partitioner_makes_collectives(jax_env, record):
    mesh = jax_env.mesh((4, 2), ("data", "model"))
    x = jax.device_put(VALUE, NamedSharding(mesh, P("data", "model")))
    w = jax.device_put(np.ones((8, 4), np.float32), NamedSharding(mesh, P("model", None)))
    record("product", jax.jit(lambda x, w: jax.nn.relu(x @ w).mean())(x, w), exact=False)
    record("sorted", jax.jit(lambda x: jnp.sort(x, axis=0))(x))


def test_in_two_halves(jax_env, record):
    from jax._src.lax.parallel import all_gather_start, psum_start  # not public yet

    axes = (jax.sharding.AxisType.Explicit,)
    mesh = jax.sharding.Mesh(np.array(jax_env.devices), ("x",), axis_types=axes)

    @jax.jit
    @jax.shard_map(mesh=mesh, in_specs=P("x"), out_specs=(P(), P("x"), P(None, reduced={"x"})))
    def program(v):
        total, parts = psum_start(v, "x"), all_gather_start(v, "x", tiled=True, to="reduced")
        between = v * 2
        return total.done(), between, parts.done()

    with jax.set_mesh(mesh):
        total, between, parts = program(jax.device_put(VALUE, NamedSharding(mesh, P("x"))))
    record("total", total, exact=False)
    record("between", between)
    record("parts", parts)
