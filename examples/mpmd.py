"""Trains one network as two different programs, one on each of two slices (MPMD).

The first slice holds the lower half of the network, the second slice the upper half. A batch is
cut into microbatches; activations go up and their gradients come down with `jax.device_put`
between the two meshes. One Python process queues all of it and waits for none of it, so the two
slices work at the same time on different microbatches. With one slice, its devices are halved.

`--check` trains the same network as one program too, and compares the losses of every step.

    python examples/mpmd.py --check
    causeway run --slices 2 -- python examples/mpmd.py --check
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits

WIDTHS = (64, 256, 256, 128, 10)
SPLIT = 2  # layers of the lower half
BATCH = 256

Layers = list[dict[str, Any]]
optimizer = optax.adam(1e-3)


def initial_layers(seed: int) -> Layers:
    rng = np.random.default_rng(seed)
    return [
        {
            "w": (rng.standard_normal((rows, columns)) * np.sqrt(2 / rows)).astype(np.float32),
            "b": np.zeros(columns, np.float32),
        }
        for rows, columns in itertools.pairwise(WIDTHS)
    ]


def lower_half(layers: Layers, x: jax.Array) -> jax.Array:
    for layer in layers:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x


def upper_half(layers: Layers, x: jax.Array, labels: jax.Array) -> jax.Array:
    *hidden, last = layers
    scores = lower_half(hidden, x) @ last["w"] + last["b"]
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


# ---------------------------------------------------------------- two programs


class Stage:
    """One half of the network on its own devices, with the gradient of the batch so far."""

    def __init__(self, devices: list[jax.Device], layers: Layers) -> None:
        mesh = Mesh(np.array(devices), ("data",))
        self.data = NamedSharding(mesh, P("data"))
        self._everywhere = NamedSharding(mesh, P())
        self._layers = jax.device_put(layers, self._everywhere)
        self._moments = jax.jit(optimizer.init, out_shardings=self._everywhere)(self._layers)
        self._gradients = None

    def run(self, program: Any, *inputs: jax.Array) -> Any:
        """Runs a program of this stage on its layers."""
        return program(self._layers, *inputs)

    def add(self, gradients: Layers) -> None:
        old, self._gradients = self._gradients, gradients
        if old is not None:
            self._gradients = _sum(old, gradients)

    def update(self, microbatches: int) -> None:
        self._layers, self._moments = _update(
            self._layers, self._moments, self._gradients, 1.0 / microbatches
        )
        self._gradients = None


@partial(jax.jit, donate_argnums=0)
def _sum(total: Layers, more: Layers) -> Layers:
    return jax.tree.map(jnp.add, total, more)


@partial(jax.jit, donate_argnums=(0, 1))
def _update(layers: Layers, moments: Any, gradients: Layers, scale: float) -> tuple[Layers, Any]:
    gradients = jax.tree.map(lambda g: g * scale, gradients)
    updates, moments = optimizer.update(gradients, moments, layers)
    return optax.apply_updates(layers, updates), moments


forward = jax.jit(lower_half)


@jax.jit
def loss_and_backward(
    layers: Layers, x: jax.Array, labels: jax.Array
) -> tuple[jax.Array, Layers, jax.Array]:
    loss, (own, below) = jax.value_and_grad(upper_half, argnums=(0, 1))(layers, x, labels)
    return loss, own, below


@jax.jit
def backward(layers: Layers, x: jax.Array, above: jax.Array) -> Layers:
    """The lower half's gradient; its activations are computed again rather than kept."""
    return jax.vjp(lambda own: lower_half(own, x), layers)[1](above)[0]


def pipeline_step(
    lower: Stage, upper: Stage, pixels: np.ndarray, labels: np.ndarray, microbatches: int
) -> list[jax.Array]:
    """Queues a whole step; returns the loss of each microbatch."""
    inputs = [jax.device_put(part, lower.data) for part in np.split(pixels, microbatches)]
    answers = [jax.device_put(part, upper.data) for part in np.split(labels, microbatches)]
    losses = []
    above = []
    for x, answer in zip(inputs, answers, strict=True):
        activations = jax.device_put(lower.run(forward, x), upper.data)
        loss, own, below = upper.run(loss_and_backward, activations, answer)
        losses.append(loss)
        upper.add(own)
        above.append(jax.device_put(below, lower.data))
    for x, gradient in zip(inputs, above, strict=True):
        lower.add(lower.run(backward, x, gradient))
    lower.update(microbatches)
    upper.update(microbatches)
    return losses


# ---------------------------------------------------------------- one program


class Reference:
    """The same training as one program on one set of devices."""

    def __init__(self, devices: list[jax.Device], layers: Layers) -> None:
        mesh = Mesh(np.array(devices), ("data",))
        self._data = NamedSharding(mesh, P("data"))
        self._layers = jax.device_put(layers, NamedSharding(mesh, P()))
        self._moments = optimizer.init(self._layers)

    def step(self, pixels: np.ndarray, labels: np.ndarray) -> jax.Array:
        batch = jax.device_put((pixels, labels), self._data)
        self._layers, self._moments, loss = self._step(self._layers, self._moments, *batch)
        return loss

    @staticmethod
    @jax.jit
    def _step(layers: Layers, moments: Any, pixels: jax.Array, labels: jax.Array) -> Any:
        def loss_of(layers: Layers) -> jax.Array:
            return upper_half(layers[SPLIT:], lower_half(layers[:SPLIT], pixels), labels)

        loss, gradients = jax.value_and_grad(loss_of)(layers)
        updates, moments = optimizer.update(gradients, moments, layers)
        return optax.apply_updates(layers, updates), moments, loss


# ---------------------------------------------------------------- devices


def two_groups() -> tuple[list[jax.Device], list[jax.Device]]:
    """The devices of two slices, or two halves of the only one; both groups equally large."""
    slices: dict[int, list[jax.Device]] = {}
    for device in jax.devices():
        slices.setdefault(getattr(device, "slice_index", 0) or 0, []).append(device)
    if len(slices) > 1:
        first, second = [slices[index] for index in sorted(slices)[:2]]
    else:
        devices = jax.devices()
        if len(devices) < 2:
            raise SystemExit("two programs need at least two devices; this machine shows one")
        first, second = devices[: len(devices) // 2], devices[len(devices) // 2 :]
    size = min(len(first), len(second))
    return first[:size], second[:size]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--microbatches", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="compare with a single program")
    arguments = parser.parse_args()

    first, second = two_groups()
    if BATCH % (arguments.microbatches * len(first)):
        parser.error(f"--microbatches times {len(first)} devices must divide {BATCH}")
    layers = initial_layers(arguments.seed)
    lower, upper = Stage(first, layers[:SPLIT]), Stage(second, layers[SPLIT:])
    reference = Reference(first, layers) if arguments.check else None

    digits = load_digits()
    pixels = (digits.data / 16.0).astype(np.float32)
    labels = digits.target.astype(np.int32)
    rng = np.random.default_rng(arguments.seed)
    print(f"lower half on devices {[d.id for d in first]}, upper on {[d.id for d in second]}")

    losses, expected = [], []
    for _ in range(arguments.steps):
        chosen = rng.integers(0, len(pixels), size=BATCH)
        losses.append(
            pipeline_step(lower, upper, pixels[chosen], labels[chosen], arguments.microbatches)
        )
        if reference:
            expected.append(reference.step(pixels[chosen], labels[chosen]))

    means = np.mean(jax.device_get(losses), axis=1)
    for step in range(0, arguments.steps, max(1, arguments.steps // 5)):
        print(f"step {step + 1:3d}: loss {means[step]:.4f}")
    print(f"step {arguments.steps:3d}: loss {means[-1]:.4f}")
    if reference:
        # Sums in another order differ in the last bits, and training lets that grow a little.
        np.testing.assert_allclose(means, np.array(jax.device_get(expected)), rtol=1e-3)
        print(f"check passed: {arguments.steps} losses equal those of one program")


if __name__ == "__main__":
    main()
