"""Transformations and control flow of everyday programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P


def test_grad_and_vmap(record):
    def loss(w, x):
        return jnp.mean(jnp.tanh(x @ w) ** 2)

    w = jnp.linspace(-1, 1, 12).reshape(4, 3)
    x = jnp.linspace(0, 2, 20).reshape(5, 4)
    value, gradient = jax.jit(jax.value_and_grad(loss))(w, x)
    record("value", value, exact=False)
    record("gradient", gradient, exact=False)
    record("each", jax.vmap(loss, in_axes=(None, 0))(w, x), exact=False)
    record("hessian", jax.hessian(loss)(w, x), exact=False)
    record("jvp", jax.jvp(lambda a: loss(a, x), (w,), (jnp.ones_like(w),))[1], exact=False)


def test_scan_while_cond(record):
    carry, outs = lax.scan(lambda c, x: (c * 0.5 + x, c), 0.0, jnp.arange(10.0))
    record("carry", carry, exact=False)
    record("outs", outs, exact=False)
    record("while", lax.while_loop(lambda v: v[0] < 50, lambda v: (v[0] * 2, v[1] + 1), (1, 0))[1])
    record("fori", lax.fori_loop(0, 7, lambda n, v: v + n, 0))
    branch = jax.jit(lambda p, x: lax.cond(p, jnp.sin, jnp.cos, x))
    record("true", branch(True, 1.0), exact=False)
    record("false", branch(False, 1.0), exact=False)
    record("switch", [int(lax.switch(n, [lambda: 5, lambda: 6, lambda: 7])) for n in range(3)])


def test_scan_over_a_sharded_state(jax_env, record):
    sharding = NamedSharding(jax_env.mesh((4, 2), ("x", "y")), P("x", "y"))
    state = jax.device_put(np.ones((8, 8), np.float32), sharding)

    @jax.jit
    def run(state):
        return lax.scan(lambda c, k: (jnp.roll(c @ c.T, k, 0) / 8, c[0, 0]), state, jnp.arange(4))

    last, history = run(state)
    record("last", last, exact=False)
    record("history", history, exact=False)


def test_custom_rules(record):
    @jax.custom_vjp
    def clipped(x):
        return x

    clipped.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -0.1, 0.1),))
    record("vjp", jax.grad(lambda x: 5 * clipped(x))(1.0))

    @jax.custom_jvp
    def soft(x):
        return jnp.log1p(jnp.exp(x))

    soft.defjvp(lambda p, t: (soft(p[0]), jax.nn.sigmoid(p[0]) * t[0]))
    record("jvp", jax.grad(soft)(0.3), exact=False)
    record("remat", jax.grad(jax.checkpoint(lambda x: jnp.sin(jnp.sin(x))))(0.7), exact=False)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_random(implementation, jax_env, record):
    key = jax.random.key(42, impl=implementation)
    record("uniform", jax.random.uniform(key, (5,)))
    record("normal", jax.random.normal(key, (7,)), exact=False)
    record("bits", jax.random.bits(jax.random.split(key)[1], (3,)))
    record("choice", jax.random.permutation(key, 9))
    if implementation == "threefry2x32":
        sharding = NamedSharding(jax_env.mesh((8,), ("x",)), P("x"))
        spread = jax.jit(lambda k: jax.random.uniform(k, (16, 2)), out_shardings=sharding)(key)
        record("spread", spread)
        keys = jax.device_put(jax.random.split(key, 8), sharding)
        record("keys", jax.random.key_data(keys))


def test_linear_algebra(jax_env, record):
    a = np.arange(16, dtype=np.float32).reshape(4, 4) / 10 + np.eye(4, dtype=np.float32) * 3
    a = jax.device_put(a, jax_env.devices[5])
    spd = a @ a.T
    record("solve", jnp.linalg.solve(a, jnp.ones(4)), exact=False)
    record("cholesky", jnp.linalg.cholesky(spd), exact=False)
    record("eigenvalues", jnp.linalg.eigvalsh(spd), exact=False)
    record("singular", jnp.linalg.svd(a, compute_uv=False), exact=False)
    q, r = jnp.linalg.qr(a)
    record("qr", q @ r, exact=False)
    record("fft", jnp.fft.fft(jnp.arange(8.0)), exact=False)


def test_convolution(record):
    image = jnp.arange(2 * 6 * 6 * 3, dtype=jnp.float32).reshape(2, 6, 6, 3) / 100
    kernel = jnp.ones((3, 3, 3, 4), jnp.float32)
    out = lax.conv_general_dilated(
        image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    record("out", out, exact=False)


def test_gather_scatter_sort(record):
    x = jnp.array([5, 3, 9, 1, 7, 3])
    record("sort", jnp.sort(x))
    record("argsort", jnp.argsort(x))
    record("top", lax.top_k(x, 3)[0])
    record("take", x[jnp.array([4, 4, 0])])
    record("add", x.at[jnp.array([1, 1, 2])].add(10))
    record("segments", jax.ops.segment_sum(x, jnp.array([0, 1, 0, 2, 1, 0]), 3))


def test_static_arguments_and_many_outputs(record):
    program = jax.jit(lambda n, x: tuple(x * k for k in range(n)), static_argnums=0)
    for n in (1, 3, 40):
        record(f"{n} outputs", program(n, jnp.arange(3))[-1])
    record("none", jax.jit(lambda x: ())(1.0) == ())
    record("no argument", jax.jit(lambda: jnp.arange(4))())
    record("many", jax.jit(lambda *xs: sum(xs))(*[jnp.int32(n) for n in range(120)]))


def test_unused_and_passed_through(jax_env, record):
    x = jax.device_put(np.arange(8.0, dtype=np.float32), jax_env.devices[4])
    out = jax.jit(lambda a, b: (a, b.sum(), 3))(x, jnp.ones(3))
    record("same", out[0])
    record("constant", out[2])
    kept = jax.jit(lambda a, b: a + 1, keep_unused=True)(x, x)
    record("kept", kept)


def test_mutable_references(record):
    ref = jax.new_ref(jnp.zeros(3))

    @jax.jit
    def program(x):
        ref[...] = ref[...] + x

    program(jnp.ones(3))
    program(jnp.full(3, 2.0))
    record("value", ref[...])


def test_training_step(jax_env, record):
    """Data and model parallel, with donation: twelve losses of a small network."""
    mesh = jax_env.mesh((4, 2), ("data", "model"))

    def put(value, *spec):
        return jax.device_put(np.asarray(value, np.float32), NamedSharding(mesh, P(*spec)))

    rng = np.random.default_rng(0)
    params = {
        "in": put(rng.standard_normal((8, 16)) / 4, None, "model"),
        "out": put(rng.standard_normal((16, 1)) / 4, "model", None),
    }
    x = put(rng.standard_normal((32, 8)), "data")
    y = put(rng.standard_normal((32, 1)), "data")

    def loss(params):
        return jnp.mean((jnp.tanh(x @ params["in"]) @ params["out"] - y) ** 2)

    step = jax.jit(
        lambda p: (jax.tree.map(lambda a, g: a - 0.1 * g, p, jax.grad(loss)(p)), loss(p)),
        donate_argnums=0,
    )
    losses = []
    for _ in range(12):
        params, value = step(params)
        losses.append(value)
    record("losses", np.array([float(v) for v in losses]), exact=False)
    record("weights", params["in"], exact=False)


def test_custom_partitioning(jax_env, record):
    mesh = jax_env.mesh((4, 2), ("x", "y"))

    @custom_partitioning
    def norms(a, b):
        return jnp.sum(a * a, axis=1), jnp.sum(b, axis=1)

    def partition(mesh, arguments, results):
        asked.append([str(value.sharding.spec) for value in (*arguments, *results)])

        def per_device(a, b):
            return lax.psum(jnp.sum(a * a, axis=1), "y"), lax.psum(jnp.sum(b, axis=1), "y")

        rows, both = NamedSharding(mesh, P("x")), NamedSharding(mesh, P("x", "y"))
        return mesh, per_device, (rows, rows), (both, both)

    asked = []
    norms.def_partition(partition, sharding_rule="i j, i j -> i, i", reduction_factors=("j",))

    @jax.jit
    def program(a, b):
        sums, others = norms(a, b)

        def step(c, _):
            return c + norms(c, b)[0][:, None], None

        again, _ = lax.scan(step, a / 8, None, length=2)
        return sums, again, jnp.sum(norms(again.T, b * 2)[1] + others)

    a = jax.device_put(np.arange(64.0, dtype=np.float32).reshape(8, 8), NamedSharding(mesh, P("x")))
    b = jax.device_put(np.ones((8, 8), np.float32), NamedSharding(mesh, P(None, "y")))
    with jax.set_mesh(mesh):
        sums, again, total = program(a, b)
        compiled = program.lower(a, b).compile()
    record("sums", sums)
    record("again", again)
    record("total", total)
    record("sharding", str(sums.sharding.spec))
    record("compiled", compiled(a, b)[1])
    record("asked", sorted(asked))
