"""What any client must be able to do, whatever its JAX: written for 0.8 to 0.10 alike.

Each check compares with NumPy. Prints the number of checks and the version at the end.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DONE = []



def check(function):
    function()
    DONE.append(function.__name__)


devices = jax.devices()
mesh = Mesh(np.array(devices), ("x",))
rows = NamedSharding(mesh, P("x"))
replicated = NamedSharding(mesh, P())
rng = np.random.default_rng(0)
A = rng.standard_normal((8, 16), dtype=np.float32)


@check
def device_put_and_back():
    for sharding in (rows, replicated, devices[-1]):
        x = jax.device_put(A, sharding)
        assert (np.asarray(x) == A).all()
    for dtype in (jnp.bfloat16, np.int8, np.bool_, np.complex64, np.float64):
        y = jax.device_put(A.astype(dtype), rows)
        assert (np.asarray(y) == np.asarray(A.astype(dtype), y.dtype)).all()


@check
def jit_runs_twice():
    f = jax.jit(lambda x: jnp.sin(x) @ x.T)
    for _ in range(3):  # the first reply tells the client what the outputs are
        got = f(A)
    np.testing.assert_allclose(np.asarray(got), np.sin(A) @ A.T, rtol=1e-5)


@check
def sharded_jit_and_grad():
    x = jax.device_put(A, rows)
    w = jax.device_put(np.ones((16, 4), np.float32), replicated)
    loss = jax.jit(lambda w, x: ((x @ w) ** 2).mean())
    value, grad = jax.value_and_grad(loss)(w, x)
    want = A @ np.ones((16, 4), np.float32)
    np.testing.assert_allclose(float(value), (want**2).mean(), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(grad), 2 * A.T @ want / want.size, rtol=1e-4)
    total = jax.jit(lambda v: v.sum(), out_shardings=replicated)(x)
    np.testing.assert_allclose(float(total), A.sum(), rtol=1e-4)


@check
def collectives():
    summed = jax.jit(
        jax.shard_map(
            lambda v: jax.lax.psum(v, "x"), mesh=mesh, in_specs=P("x"), out_specs=P()
        )
    )(jax.device_put(A, rows))
    want = A.reshape(len(devices), -1, 16).sum(0)
    np.testing.assert_allclose(np.asarray(summed), want, rtol=1e-5)


@check
def random_numbers():
    key = jax.random.key(7)
    a, b = jax.random.normal(key, (32,)), jax.random.normal(key, (32,))
    assert (np.asarray(a) == np.asarray(b)).all()
    with jax.default_device(devices[-1]):
        c = jax.random.normal(jax.random.key(7), (32,))
    assert (np.asarray(a) == np.asarray(c)).all()


@check
def donation():
    x = jax.device_put(A, rows)
    y = jax.jit(lambda v: v + 1, donate_argnums=0)(x)
    np.testing.assert_allclose(np.asarray(y), A + 1)
    assert x.is_deleted()


@check
def reshard_and_delete():
    x = jax.device_put(jax.device_put(A, rows), replicated)
    assert (np.asarray(x) == A).all()
    x.delete()
    try:
        np.asarray(x)
    except RuntimeError as error:
        assert "deleted" in str(error)
    else:
        raise AssertionError("a deleted array was read")


@check
def scan_and_cond():
    def body(carry, v):
        carry = jax.lax.cond(v.sum() > 0, lambda c: c + v, lambda c: c - v, carry)
        return carry, carry.sum()

    carry, sums = jax.jit(lambda x: jax.lax.scan(body, jnp.zeros(16), x))(A)
    want = np.zeros(16, np.float32)
    for v in A:
        want = want + v if v.sum() > 0 else want - v
    np.testing.assert_allclose(np.asarray(carry), want, rtol=1e-4, atol=1e-5)
    assert sums.shape == (8,)


@check
def mistakes_are_told():
    other = jax.device_put(A, devices[0])
    try:
        jax.jit(lambda a, b: a + b)(jax.device_put(A, rows), other).block_until_ready()
    except ValueError as error:
        assert "device" in str(error)
    else:
        raise AssertionError("arrays on other devices were added")
    try:
        jax.jit(lambda x: x.reshape(3))(A)
    except TypeError:
        pass
    else:
        raise AssertionError("a wrong shape was accepted")


@check
def ahead_of_time():
    compiled = jax.jit(lambda x: x * 2).lower(jax.ShapeDtypeStruct((4,), np.float32)).compile()
    np.testing.assert_allclose(np.asarray(compiled(np.ones(4, np.float32))), 2)


if "package" in sys.argv[1:]:

    @check
    def callbacks():
        seen = []
        f = jax.jit(lambda x: (jax.debug.callback(lambda v: seen.append(float(v)), x), x + 1)[1])
        assert float(f(1.0)) == 2.0
        jax.effects_barrier()
        assert seen == [1.0]
        g = jax.jit(
            lambda x: jax.pure_callback(
                lambda v: np.asarray(v) * 3, jax.ShapeDtypeStruct((), np.float32), x
            )
        )
        assert float(g(np.float32(2))) == 6.0

    @check
    def an_array_may_be_filled_again_at_once():
        program = jax.jit(lambda x: x * 1)
        compiled = program.lower(A).compile()
        for give in (jnp.asarray, lambda x: jax.device_put(x, rows), program, compiled):
            for n in range(50):
                x = np.full(A.shape, n, A.dtype)
                y = give(x)
                x[:] = -1
                assert (np.asarray(y) == n).all()


print(f"{len(DONE)} checks with jax {jax.__version__}")
