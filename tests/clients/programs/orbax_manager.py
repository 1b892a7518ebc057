"""Orbax CheckpointManager: saved while training goes on, restored on another mesh."""

import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def run(asynchronous):
    devices = np.array(jax.devices())
    mesh = Mesh(devices.reshape(-1, 2), ("a", "b"))
    sharding = NamedSharding(mesh, P("a", "b"))
    state = {
        "w": jax.device_put(np.arange(128, dtype=np.float32).reshape(16, 8), sharding),
        "half": jax.device_put(np.arange(16).astype(jnp.bfloat16), NamedSharding(mesh, P("a"))),
        "count": jnp.int32(0),
    }
    step = jax.jit(lambda s: jax.tree.map(lambda v: v + 1, s), donate_argnums=0)
    with tempfile.TemporaryDirectory() as folder:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, enable_async_checkpointing=asynchronous
        )
        with ocp.CheckpointManager(folder, options=options) as manager:
            for number in range(4):
                state = step(state)
                manager.save(number, args=ocp.args.StandardSave(state))
            manager.wait_until_finished()
            assert list(manager.all_steps()) == [2, 3]

            other = Mesh(devices[::-1], ("c",))
            wanted = {
                "w": NamedSharding(other, P(None, "c")),
                "half": NamedSharding(other, P()),
                "count": NamedSharding(other, P()),
            }
            shapes = jax.tree.map(
                lambda v, s: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=s), state, wanted
            )
            for number in (2, 3):
                back = manager.restore(number, args=ocp.args.StandardRestore(shapes))
                expected = np.arange(128, dtype=np.float32).reshape(16, 8) + number + 1
                np.testing.assert_array_equal(np.asarray(back["w"]), expected)
                assert int(back["count"]) == number + 1
                assert back["w"].sharding.is_equivalent_to(wanted["w"], 2)
                assert back["half"].dtype == jnp.bfloat16
            again = step(back)
            return float(again["w"].sum())


def main():
    print("RESULT", run(asynchronous=False), run(asynchronous=True))


if __name__ == "__main__":
    main()
