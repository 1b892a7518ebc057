"""Optax with state as sharded as its parameters: clipping, schedule, accumulation, donation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def main():
    devices = np.array(jax.devices()).reshape(-1, 2)
    mesh = Mesh(devices, ("data", "model"))
    rng = np.random.default_rng(2)

    def weights(*shape, spec):
        value = rng.standard_normal(shape).astype(np.float32) / 4
        return jax.device_put(value, NamedSharding(mesh, spec))

    params = {
        "in": weights(16, 64, spec=P(None, "model")),
        "out": weights(64, 1, spec=P("model", None)),
    }
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.02, 2, 20)
    optimizer = optax.MultiSteps(
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule)), every_k_schedule=2
    )
    state = jax.jit(optimizer.init)(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, x, y):
        def loss(p):
            return optax.huber_loss(jax.nn.gelu(x @ p["in"]) @ p["out"], y).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    x = rng.standard_normal((512, 16)).astype(np.float32)
    y = (x[:, :1] * x[:, 1:2]).astype(np.float32)
    losses = []
    for begin in range(0, 512, 32):
        batch = jax.device_put(
            (x[begin : begin + 32], y[begin : begin + 32]), NamedSharding(mesh, P("data"))
        )
        params, state, value = step(params, state, *batch)
        losses.append(value)
    assert params["in"].sharding.spec == P(None, "model")
    assert jnp.isfinite(optax.global_norm(params))
    print("RESULT", *(f"{float(v):.4f}" for v in losses))


if __name__ == "__main__":
    main()
