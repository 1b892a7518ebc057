"""Trains a small network on every device of a cluster, through the loss and return of a slice.

Stock JAX, Optax and pathwaysutils: nothing here knows of Causeway. Each line of output is one
JSON object; whoever reads them may take a slice away meanwhile and give it back (see
`causeway demo`). Run by hand it trains, then waits a minute for a slice to be lost.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pathwaysutils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from pathwaysutils.elastic import elastic
from sklearn.datasets import load_digits

BATCH = 192  # divisible by the devices of any number of slices the demo has
STEPS = 40  # between two reports
LOSSES_MAX = 5
SNAPSHOT_EVERY = 5
LOSS_WAIT_SECONDS = 60.0
RETURN_WAIT_SECONDS = 90.0

_optimizer = optax.adam(2e-3)


def say(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def initial_parameters() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)

    def layer(rows: int, columns: int) -> np.ndarray:
        return (rng.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)

    return {
        "w1": layer(64, 128),
        "b1": np.zeros(128, np.float32),
        "w2": layer(128, 10),
        "b2": np.zeros(10, np.float32),
    }


def logits(parameters: dict[str, jax.Array], pixels: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(pixels @ parameters["w1"] + parameters["b1"])
    return hidden @ parameters["w2"] + parameters["b2"]


def loss_of(parameters: dict[str, jax.Array], pixels: jax.Array, labels: jax.Array) -> jax.Array:
    scores = logits(parameters, pixels)
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


@jax.jit
def train_step(state: Any, pixels: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
    parameters, moments = state
    loss, gradients = jax.value_and_grad(loss_of)(parameters, pixels, labels)
    updates, moments = _optimizer.update(gradients, moments, parameters)
    return (optax.apply_updates(parameters, updates), moments), loss


class Trainer:
    """The model's state on some devices, and its last snapshot in this process's memory."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        self._pixels, self._labels = pixels, labels
        parameters = initial_parameters()
        # Adam starts from zeros: made here, so that the first state is plain host memory.
        shapes = jax.eval_shape(_optimizer.init, parameters)
        moments = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        self.snapshot: tuple[int, Any] = (0, (parameters, moments))
        self.step = 0
        self.losses: dict[int, float] = {}

    def place(self, devices: list[jax.Device]) -> None:
        """Goes on from the snapshot on these devices."""
        self._mesh = Mesh(np.array(devices), ("data",))
        self._data = NamedSharding(self._mesh, P("data"))
        self.step, host = self.snapshot
        self._state = jax.device_put(host, NamedSharding(self._mesh, P()))

    def train(self, steps: int) -> None:
        for _ in range(steps):
            begin = (self.step * BATCH) % (len(self._pixels) - BATCH)
            pixels = jax.device_put(self._pixels[begin : begin + BATCH], self._data)
            labels = jax.device_put(self._labels[begin : begin + BATCH], self._data)
            self._state, loss = train_step(self._state, pixels, labels)
            self.losses[self.step] = float(loss)
            self.step += 1
            if self.step % SNAPSHOT_EVERY == 0:
                self.take_snapshot()

    def take_snapshot(self) -> None:
        self.snapshot = (self.step, jax.tree.map(np.asarray, self._state))

    def accuracy(self) -> float:
        guesses = np.asarray(jnp.argmax(logits(self._state[0], self._pixels), axis=-1))
        return float((guesses == self._labels).mean())


class Elastic:
    """Trains on whatever slices there are: goes on with fewer when one is lost."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        found = elastic.get_slice_to_devices(tuple(jax.devices()))
        self.slices = {index: list(devices) for index, devices in found.items()}
        self.losses_survived = 0
        self._use(set(self.slices))

    def train(self, steps: int) -> None:
        """Makes `steps` steps of progress; a slice that is lost on the way is only reported."""
        goal = self.trainer.step + steps
        seen = 0.0  # when the last loss was seen, until a step has succeeded since
        while self.trainer.step < goal:
            try:
                self.trainer.train(1)
            except jax.errors.JaxRuntimeError as error:
                if not elastic.is_error_due_to_slice_down(error, log_traceback=False):
                    raise
                if self.losses_survived == LOSSES_MAX:
                    raise
                self.losses_survived += 1
                seen = time.time()
                say("lost", step=self.trainer.step, seen=seen, error=str(error).splitlines()[0])
                self._use(set(elastic.get_active_slice_indices(self.slices)))
                continue
            if seen:
                now = time.time()
                say(
                    "resumed",
                    slices=len(self.active),
                    step=self.trainer.step - 1,
                    lost_at=seen,
                    seen=now,
                    seconds=now - seen,
                )
                seen = 0.0
        say(
            "trained",
            step=self.trainer.step,
            loss=self.trainer.losses[self.trainer.step - 1],
            slices=len(self.active),
        )

    def wait_for_all(self) -> None:
        """Waits until every slice answers again, then goes on from here on all of them."""
        deadline = time.monotonic() + RETURN_WAIT_SECONDS
        while set(elastic.get_active_slice_indices(self.slices)) != set(self.slices):
            if time.monotonic() > deadline:
                raise TimeoutError("the lost slice did not come back")
            time.sleep(0.1)
        self.trainer.take_snapshot()
        self._use(set(self.slices))
        say("whole", slices=len(self.active), seen=time.time())

    def _use(self, active: set[int]) -> None:
        if not active:
            raise RuntimeError("no slice is left to go on with")
        self.active = active
        self.trainer.place([device for index in sorted(active) for device in self.slices[index]])


def main() -> int:
    pathwaysutils.initialize()
    digits = load_digits()
    trainer = Trainer((digits.data / 16.0).astype(np.float32), digits.target.astype(np.int32))
    training = Elastic(trainer)
    say(
        "connected",
        devices=len(jax.devices()),
        slices=len(training.slices),
        kind=jax.devices()[0].device_kind,
    )
    training.train(STEPS)
    deadline = time.monotonic() + LOSS_WAIT_SECONDS
    while not training.losses_survived:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no slice was lost within {LOSS_WAIT_SECONDS:.0f} s")
        training.train(STEPS)
    training.wait_for_all()
    training.train(STEPS)
    say(
        "done",
        accuracy=trainer.accuracy(),
        steps=trainer.step,
        losses=[trainer.losses[step] for step in range(trainer.step)],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
