"""What the public Pathways helpers ask of a backend: splitting and joining arrays over meshes."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

VALUE = np.arange(64, dtype=np.float32).reshape(8, 8)


@pytest.fixture(autouse=True)
def remote(jax_env):
    if jax_env.side == "local":
        pytest.skip("these helpers work with a Pathways backend only")


def _meshes(env):
    devices = np.array(env.devices).reshape(2, 4)
    return [Mesh(devices[:1], ("slice", "x")), Mesh(devices[1:], ("slice", "x"))], Mesh(
        devices, ("slice", "x")
    )


def test_concatenate_and_split(jax_env):
    from pathwaysutils.experimental import concatenate_by_mesh_axis, split_by_mesh_axis

    halves, whole = _meshes(jax_env)
    parts = [
        jax.device_put(VALUE[n * 4 : n * 4 + 4], NamedSharding(mesh, P("slice", "x")))
        for n, mesh in enumerate(halves)
    ]
    joined = concatenate_by_mesh_axis.concatenate_by_mesh_axis(parts, "slice")
    np.testing.assert_array_equal(np.asarray(joined), VALUE)
    assert joined.sharding.device_set == set(whole.devices.flat)
    back = split_by_mesh_axis.split_by_mesh_axis(joined, "slice")
    for n, part in enumerate(back):
        np.testing.assert_array_equal(np.asarray(part), VALUE[n * 4 : n * 4 + 4])


def test_reshard(jax_env):
    from pathwaysutils.experimental import reshard

    mesh = Mesh(np.array(jax_env.devices).reshape(4, 2), ("a", "b"))
    x = jax.device_put(VALUE, NamedSharding(mesh, P("a", "b")))
    try:
        out = reshard.reshard(x, NamedSharding(mesh, P("b", "a")))
    except jax.errors.JaxRuntimeError as error:
        pytest.xfail(f"programs that are no StableHLO are refused: {str(error)[:80]}")
    np.testing.assert_array_equal(np.asarray(out), VALUE)
    assert out.sharding.spec == P("b", "a")


def test_devices_say_where_they_are(jax_env):
    assert [device.id for device in jax_env.devices] == list(range(8))
    assert {device.process_index for device in jax_env.devices} == {0}
    assert jax.process_count() == 1
    assert jax_env.devices[0].client.runtime_type == "proxy/pathways"
