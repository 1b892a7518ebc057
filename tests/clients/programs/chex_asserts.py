"""Chex: assertions on arrays of any placement, dataclasses as trees, variants of a function."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


@chex.dataclass
class Moments:
    mean: chex.Array
    square: chex.Array


@jax.jit
@chex.assert_max_traces(n=1)
def moments(x):
    chex.assert_shape(x, (16, 4))
    return Moments(mean=x.mean(0), square=(x**2).mean(0))


def main():
    mesh = Mesh(np.array(jax.devices()), ("x",))
    value = np.arange(64, dtype=np.float32).reshape(16, 4)
    spread = jax.device_put(value, NamedSharding(mesh, P("x")))
    for _ in range(2):
        found = moments(spread)
    chex.assert_trees_all_close(found.mean, value.mean(0), rtol=1e-5)
    chex.assert_trees_all_equal_shapes(found, Moments(mean=jnp.ones(4), square=jnp.ones(4)))
    chex.assert_tree_all_finite(found)
    chex.assert_trees_all_equal(spread, value)
    print("RESULT", float(found.square.sum()))


if __name__ == "__main__":
    main()
