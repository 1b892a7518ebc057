"""One epoch of a small regression in Flax nnx with its optimizer and metrics."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


class Network(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(8, 32, rngs=rngs)
        self.norm = nnx.BatchNorm(32, rngs=rngs)
        self.second = nnx.Linear(32, 1, rngs=rngs)

    def __call__(self, x):
        return self.second(jnp.tanh(self.norm(self.first(x))))


@nnx.jit
def step(model, optimizer, metrics, x, y):
    def loss(model):
        return jnp.mean((model(x) - y) ** 2)

    value, gradient = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradient)
    metrics.update(loss=value)
    return value


def main():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    model = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.05, momentum=0.9), wrt=nnx.Param)
    metrics = nnx.MultiMetric(loss=nnx.metrics.Average("loss"))
    for part in (model, optimizer, metrics):
        state = nnx.state(part)
        nnx.update(part, jax.device_put(state, NamedSharding(mesh, P())))
    rng = np.random.default_rng(1)
    x = rng.standard_normal((512, 8)).astype(np.float32)
    y = np.sin(x.sum(axis=1, keepdims=True)).astype(np.float32)
    rows = NamedSharding(mesh, P("data"))
    losses = []
    for begin in range(0, 512, 64):
        batch = jax.device_put((x[begin : begin + 64], y[begin : begin + 64]), rows)
        losses.append(float(step(model, optimizer, metrics, *batch)))
    average = float(metrics.compute()["loss"])
    assert np.isclose(average, np.mean(losses), rtol=1e-4)
    model.eval()
    assert model(x[:4]).shape == (4, 1)
    print("RESULT", *(f"{v:.4f}" for v in losses))


if __name__ == "__main__":
    main()
