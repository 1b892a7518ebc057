"""One epoch of a small classifier in Flax linen with a TrainState, data-parallel."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training import train_state
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


class Classifier(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(32)(x))
        x = nn.LayerNorm()(x)
        return nn.Dense(4)(x)


def main():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((4, 16)).astype(np.float32) * 2
    labels = rng.integers(0, 4, 512)
    points = centres[labels] + rng.standard_normal((512, 16)).astype(np.float32)

    model = Classifier()
    params = model.init(jax.random.key(0), jnp.ones((1, 16)))["params"]
    state = train_state.TrainState.create(
        apply_fn=model.apply, params=params, tx=optax.adamw(1e-2)
    )
    state = jax.device_put(state, NamedSharding(mesh, P()))

    @jax.jit
    def step(state, x, y):
        def loss(params):
            logits = state.apply_fn({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, gradient = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=gradient), value

    losses = []
    for begin in range(0, 512, 64):
        batch = jax.device_put(
            (points[begin : begin + 64], labels[begin : begin + 64]), NamedSharding(mesh, P("data"))
        )
        state, value = step(state, *batch)
        losses.append(float(value))
    assert losses[-1] < losses[0] * 0.7, losses
    print("RESULT", *(f"{v:.4f}" for v in losses))


if __name__ == "__main__":
    main()
