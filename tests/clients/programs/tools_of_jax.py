"""Tools around JAX: a profile, drawings of shardings, meshes made for the hardware, multihost."""

import contextlib
import io
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def profile():
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder), jax.profiler.TraceAnnotation("a step"):
            jax.block_until_ready(jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((64, 64))))
        return any(Path(folder).rglob("*.xplane.pb"))


def drawing():
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))
    array = jax.device_put(np.ones((8, 8), np.float32), NamedSharding(mesh, P("x", "y")))
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        jax.debug.visualize_array_sharding(array)
    return out.getvalue().count("CPU") >= 8 or any(c.isdigit() for c in out.getvalue())


def main():
    assert profile()
    assert drawing()
    devices = jax.devices()
    grid = mesh_utils.create_device_mesh((4, 2), devices)
    assert grid.shape == (4, 2)
    if len({getattr(d, "slice_index", 0) for d in devices}) == 2:
        hybrid = mesh_utils.create_hybrid_device_mesh((2, 2), (2, 1), devices)
        assert {d.slice_index for d in hybrid[:2].flat} == {0}
        assert {d.slice_index for d in hybrid[2:].flat} == {1}
    mesh = Mesh(grid, ("a", "b"))
    value = np.arange(32, dtype=np.float32).reshape(8, 4)
    array = multihost_utils.host_local_array_to_global_array(value, mesh, P("a", "b"))
    back = multihost_utils.global_array_to_host_local_array(array, mesh, P("a", "b"))
    np.testing.assert_array_equal(np.asarray(back), value)
    gathered = multihost_utils.process_allgather(array, tiled=True)
    np.testing.assert_array_equal(np.asarray(gathered), value)
    multihost_utils.sync_global_devices("all here")
    multihost_utils.assert_equal(value, "the same everywhere")
    seed = multihost_utils.broadcast_one_to_all(np.int32(7))
    print("RESULT", int(seed), float(array.sum()))


if __name__ == "__main__":
    main()
