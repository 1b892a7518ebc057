"""One epoch in Equinox: modules as trees, filtered transformations."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def main():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    model = eqx.nn.MLP(4, 1, 16, 2, activation=jnp.tanh, key=jax.random.key(3))
    optimizer = optax.adam(1e-2)
    model = eqx.filter_shard(model, NamedSharding(mesh, P()))
    state = optimizer.init(eqx.filter(model, eqx.is_array))

    @eqx.filter_jit
    def step(model, state, x, y):
        def loss(model):
            return jnp.mean((jax.vmap(model)(x) - y) ** 2)

        value, gradient = eqx.filter_value_and_grad(loss)(model)
        updates, state = optimizer.update(gradient, state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), state, value

    rng = np.random.default_rng(4)
    x = rng.standard_normal((256, 4)).astype(np.float32)
    y = np.abs(x).sum(axis=1, keepdims=True).astype(np.float32)
    losses = []
    for begin in range(0, 256, 32):
        batch = eqx.filter_shard(
            (x[begin : begin + 32], y[begin : begin + 32]), NamedSharding(mesh, P("data"))
        )
        model, state, value = step(model, state, *batch)
        losses.append(float(value))
    print("RESULT", *(f"{v:.4f}" for v in losses))


if __name__ == "__main__":
    main()
