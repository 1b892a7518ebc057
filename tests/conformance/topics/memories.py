"""Memory kinds and layouts."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout
from jax.sharding import NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

VALUE = np.arange(64, dtype=np.float32).reshape(8, 8)


def test_kinds_of_a_device(jax_env):
    for device in jax_env.devices:
        assert device.default_memory().kind == "device"
        kinds = {memory.kind for memory in device.addressable_memories()}
        assert {"device", "pinned_host"} <= kinds


def test_host_memory_and_back(jax_env, record):
    mesh = jax_env.mesh((8,), ("x",))
    on_host = NamedSharding(mesh, P("x"), memory_kind="pinned_host")
    on_device = NamedSharding(mesh, P("x"), memory_kind="device")
    x = jax.device_put(VALUE, on_host)
    record("kind", x.sharding.memory_kind)
    np.testing.assert_array_equal(np.asarray(x), VALUE)
    y = jax.device_put(x, on_device)
    record("kind after", y.sharding.memory_kind)
    np.testing.assert_array_equal(np.asarray(jax.jit(lambda a: a + 1)(y)), VALUE + 1)
    back = jax.device_put(y, on_host)
    np.testing.assert_array_equal(np.asarray(back), VALUE)


def test_single_device_host_memory(jax_env):
    device = jax_env.devices[6]
    x = jax.device_put(VALUE, SingleDeviceSharding(device, memory_kind="pinned_host"))
    assert x.sharding.memory_kind == "pinned_host"
    np.testing.assert_array_equal(np.asarray(x), VALUE)


def test_default_layout(jax_env, record):
    x = jax.device_put(VALUE, jax_env.devices[1])
    record("layout", str(x.format.layout.major_to_minor))


def test_chosen_layout(jax_env, record):
    sharding = SingleDeviceSharding(jax_env.devices[1])
    wanted = Format(Layout(major_to_minor=(1, 0)), sharding)
    x = jax.device_put(VALUE, wanted)
    record("layout", str(x.format.layout.major_to_minor))
    np.testing.assert_array_equal(np.asarray(x), VALUE)
    out = jax.jit(lambda a: a + 1)(x)
    np.testing.assert_array_equal(np.asarray(out), VALUE + 1)


def test_layout_of_outputs(jax_env, record):
    sharding = NamedSharding(jax_env.mesh((8,), ("x",)), P("x"))
    wanted = Format(Layout(major_to_minor=(1, 0)), sharding)
    out = jax.jit(lambda a: a * 2, out_shardings=wanted)(VALUE)
    record("layout", str(out.format.layout.major_to_minor))
    np.testing.assert_array_equal(np.asarray(out), VALUE * 2)


def test_automatic_layout(jax_env, record):
    program = jax.jit(lambda a: a.T @ a, in_shardings=Format(Layout.AUTO))
    compiled = program.lower(jax.ShapeDtypeStruct((8, 8), np.float32)).compile()
    (arguments, _) = compiled.input_formats
    x = jax.device_put(VALUE, arguments[0])
    record("out", compiled(x), exact=False)


def test_memory_stats_do_not_raise(jax_env):
    assert jax_env.devices[0].memory_stats() is None or isinstance(
        jax_env.devices[0].memory_stats(), dict
    )


def test_size_on_device(jax_env, record):
    x = jnp.zeros((3, 5), jnp.bfloat16)
    record("bytes", x.nbytes)
