"""What the public Pathways helpers ask of a backend beyond StableHLO."""

import datetime

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
    out = reshard.reshard(x, NamedSharding(mesh, P("b", "a")))
    np.testing.assert_array_equal(np.asarray(out), VALUE)
    assert out.sharding.spec == P("b", "a")


def test_reshard_donates_what_it_may(jax_env):
    from pathwaysutils.experimental import reshard

    half = Mesh(np.array(jax_env.devices[4:]), ("x",))
    tree = {"a": VALUE, "b": VALUE[0]}
    x = jax.device_put(tree, NamedSharding(jax_env.mesh((8,), ("x",)), P()))
    out = reshard.reshard(x, NamedSharding(half, P("x")), donate=True)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(out), tree)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(x))


def test_arrays_to_files_and_back(jax_env, tmp_path):
    from pathwaysutils.persistence import helper

    mesh = jax_env.mesh((4, 2), ("a", "b"))
    tiled, rows = NamedSharding(mesh, P("a", "b")), NamedSharding(mesh, P("a"))
    arrays = {
        "tiled": jax.device_put(VALUE, tiled),
        "rows": jax.device_put(VALUE.astype(jax.numpy.bfloat16), rows),
        "whole": jax.device_put(np.arange(3, dtype=np.int32), NamedSharding(mesh, P())),
    }
    limit = datetime.timedelta(seconds=30)
    helper.write_arrays(str(tmp_path), list(arrays), list(arrays.values()), limit).result()
    # Back in another order of shards, and one into another cut.
    back, done = helper.read_arrays(
        str(tmp_path),
        list(arrays),
        [a.dtype for a in arrays.values()],
        [a.shape for a in arrays.values()],
        [rows, tiled, NamedSharding(mesh, P())],
        list(mesh.devices.flat),
        limit,
    )
    done.result()
    for array, (name, old) in zip(back, arrays.items(), strict=True):
        np.testing.assert_array_equal(np.asarray(array), np.asarray(old), err_msg=name)


def test_what_is_not_there_is_a_mistake(jax_env, tmp_path):
    from pathwaysutils.persistence import helper

    sharding = NamedSharding(jax_env.mesh((8,), ("x",)), P("x"))
    arrays, done = helper.read_arrays(
        str(tmp_path),
        ["nothing"],
        [np.dtype(np.float32)],
        [(8,)],
        [sharding],
        jax_env.devices,
        datetime.timedelta(seconds=30),
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match="INVALID_ARGUMENT"):
        done.result()
    with pytest.raises(jax.errors.JaxRuntimeError, match="INVALID_ARGUMENT"):
        np.asarray(arrays[0])


def test_traces_of_the_workers(jax_env, tmp_path):
    from pathwaysutils import profiling

    options = jax.profiler.ProfileOptions()
    options.session_id = "run"
    request = profiling._create_profile_request(tmp_path, options, max_num_hosts=2)
    assert "xprofTraceOptions" in request
    profiling._start_pathways_trace_from_profile_request(request)
    jax.jit(lambda a: a @ a)(VALUE).block_until_ready()
    with profiling._profile_state.lock:
        profiling._profile_state.call_profile_executable()
        profiling._profile_state.reset()
    files = sorted(tmp_path.glob("plugins/profile/run/*.xplane.pb"))
    assert [f.name.rpartition("-")[2] for f in files] == ["worker0.xplane.pb", "worker1.xplane.pb"]
    assert all(f.stat().st_size > 100 for f in files)


def test_programs_of_other_kinds_are_refused(jax_env):
    from pathwaysutils import plugin_executable

    with pytest.raises(jax.errors.JaxRuntimeError, match="Bad PluginProgram"):
        plugin_executable.PluginExecutable('{"somethingElse": {}}')


def test_devices_say_where_they_are(jax_env):
    assert [device.id for device in jax_env.devices] == list(range(8))
    assert {device.process_index for device in jax_env.devices} == {0}
    assert jax.process_count() == 1
    assert jax_env.devices[0].client.runtime_type == "proxy/pathways"
