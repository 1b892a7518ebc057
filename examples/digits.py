"""Trains a small Flax network on scikit-learn's handwritten digits, data parallel on all devices.

Stock JAX, Flax and Optax: runs unchanged on this machine's devices and on a cluster.

    python examples/digits.py
    causeway run --slices 2 -- python examples/digits.py
"""

from __future__ import annotations

import argparse

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

BATCH = 192


class Classifier(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(64, 128, rngs=rngs)
        self.norm = nnx.LayerNorm(128, rngs=rngs)
        self.out = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        return self.out(nnx.gelu(self.norm(self.hidden(pixels))))


def loss_of(model: Classifier, pixels: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(model(pixels), labels).mean()


@nnx.jit
def train_step(
    model: Classifier, optimizer: nnx.Optimizer, pixels: jax.Array, labels: jax.Array
) -> jax.Array:
    loss, gradients = nnx.value_and_grad(loss_of)(model, pixels, labels)
    optimizer.update(model, gradients)
    return loss


@nnx.jit
def guess(model: Classifier, pixels: jax.Array) -> jax.Array:
    return model(pixels).argmax(axis=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    mesh = Mesh(np.array(jax.devices()), ("data",))
    over_devices = NamedSharding(mesh, P("data"))
    everywhere = NamedSharding(mesh, P())
    # Every device gets the same number of examples of a batch.
    batch = BATCH - BATCH % mesh.size or mesh.size

    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        (digits.data / 16.0).astype(np.float32),
        digits.target.astype(np.int32),
        test_size=0.2,
        random_state=0,
        stratify=digits.target,
    )
    model = Classifier(nnx.Rngs(arguments.seed))
    optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)
    for part in (model, optimizer):
        nnx.update(part, jax.device_put(nnx.state(part), everywhere))

    rng = np.random.default_rng(arguments.seed)
    for epoch in range(1, arguments.epochs + 1):
        order = rng.permutation(len(train_x))
        for begin in range(0, len(order) - batch + 1, batch):
            chosen = order[begin : begin + batch]
            pixels, labels = jax.device_put((train_x[chosen], train_y[chosen]), over_devices)
            loss = train_step(model, optimizer, pixels, labels)
        if epoch % 10 == 0 or epoch == arguments.epochs:
            print(f"epoch {epoch}: loss {float(loss):.4f}", flush=True)

    guesses = np.asarray(guess(model, jax.device_put(test_x, everywhere)))
    accuracy = float((guesses == test_y).mean())
    print(f"test accuracy: {accuracy:.1%} on {mesh.size} devices")


if __name__ == "__main__":
    main()
