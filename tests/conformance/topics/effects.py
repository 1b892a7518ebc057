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


def test_ordered_on_several_devices(jax_env, record):
    seen = []
    program = jax.jit(
        lambda x: io_callback(lambda v: seen.append(int(v)), None, x.sum(), ordered=True)
    )
    # Each call's tokens are inputs of the next one, which may run on other devices.
    for turn, devices in enumerate((jax_env.devices, jax_env.devices[3:5], jax_env.devices[4:])):
        sharding = NamedSharding(jax.sharding.Mesh(np.array(devices), "x"), P("x"))
        program(jax.device_put(np.full(8, turn + 1, np.int32), sharding))
        program(jax.device_put(np.full(8, -turn, np.int32), sharding))
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


def test_inspect_shardings_in_a_jit(jax_env, record):
    mesh = jax_env.mesh((4, 2), ("x", "y"))
    seen = {}

    def look(name, value):
        def note(sharding):
            seen[name] = str(sharding.spec)

        jax.debug.inspect_array_sharding(value, callback=note)
        return value

    @jax.jit
    def inner(a):
        return look("inner", a) * 2

    def step(c, _):
        return look("scan", c) + 1, None

    def program(a, b):
        a = inner(a)
        product = look("product", a @ b)
        look("transposed", jnp.reshape(product.T, (4, 2, 8)))
        local = jax.shard_map(
            lambda v: look("manual", v),
            mesh=mesh,
            in_specs=P("x"),
            out_specs=P("x"),
            axis_names={"x"},
        )
        c, _ = jax.lax.scan(step, local(product), None, length=2)
        return jax.grad(lambda v: look("grad", v).sum())(c)

    a = jax.device_put(np.ones((8, 4), np.float32), NamedSharding(mesh, P("x", None)))
    b = jax.device_put(np.ones((4, 8), np.float32), NamedSharding(mesh, P(None, "y")))
    lowered = jax.jit(program).lower(a, b)
    before = lowered.as_text()
    record("out", lowered.compile()(a, b))
    record("seen", seen)
    assert lowered.as_text() == before
    jax.debug.visualize_array_sharding(a)  # does not fail, as in a jit:
    jax.jit(lambda v: (jax.debug.visualize_array_sharding(v), v)[1])(a)


def test_buffer_callback_fills_its_results(jax_env, record):
    from jax.experimental.buffer_callback import buffer_callback

    def fill(ctx, out, x):
        np.asarray(out)[...] = np.asarray(x) + 1

    for dtype in (np.float32, jnp.bfloat16, np.bool_, np.complex64, np.int16):
        x = np.arange(6).reshape(2, 3).astype(dtype)
        program = jax.jit(buffer_callback(fill, jax.ShapeDtypeStruct(x.shape, x.dtype)))
        record(np.dtype(dtype).name, program(jax.device_put(x, jax_env.devices[5])))
    mesh = jax_env.mesh((8,), ("x",))
    split = jax.device_put(np.arange(16, dtype=np.float32), NamedSharding(mesh, P("x")))
    each = buffer_callback(fill, jax.ShapeDtypeStruct((2,), np.float32))
    each = jax.shard_map(each, mesh=mesh, in_specs=P("x"), out_specs=P("x"))
    record("each", jax.jit(each)(split))
    whole = buffer_callback(fill, jax.ShapeDtypeStruct((16,), np.float32))
    record("whole", jax.jit(whole)(split))
