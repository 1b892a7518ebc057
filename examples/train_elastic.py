"""Trains through the loss and the return of a slice, and draws the loss curve with both marked.

    causeway run --slices 3 -- python examples/train_elastic.py --kill-at 150 --png losses.png

The one example that imports Causeway: snapshots lie in the cluster's memory, and nothing is
restarted or compiled again. With --kill-at it kills one slice's worker itself (on this machine);
without, take one away from another terminal: causeway kill slice 1, causeway restore slice 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits

from causeway import elastic
from causeway.elastic.events import find_ops_url

BATCH_A_SLICE = 64
RETURN_SECONDS = 60.0  # how long to wait for a lost slice at the end


def first_state(mesh: Mesh, optimizer: optax.GradientTransformation) -> Any:
    rng = np.random.default_rng(0)

    def layer(rows: int, columns: int) -> np.ndarray:
        return (rng.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)

    weights = {"hidden": layer(64, 256), "out": layer(256, 10)}
    everywhere = NamedSharding(mesh, P())
    weights = jax.device_put(weights, everywhere)
    return weights, jax.device_put(optimizer.init(weights), everywhere)


def loss_of(weights: Any, pixels: jax.Array, labels: jax.Array) -> jax.Array:
    scores = jax.nn.relu(pixels @ weights["hidden"]) @ weights["out"]
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


class Training:
    def __init__(self, manager: elastic.Manager, steps: int) -> None:
        self.manager = manager
        self.steps = steps
        self.optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)
        digits = load_digits()
        self.pixels = (digits.data / 16.0).astype(np.float32)
        self.labels = digits.target.astype(np.int32)
        self.losses: dict[int, float] = {}
        self.events: list[dict[str, Any]] = []
        self.use(first_state, 0)

        def train_step(state: Any, pixels: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
            weights, moments = state
            loss, gradients = jax.value_and_grad(loss_of)(weights, pixels, labels)
            updates, moments = self.optimizer.update(gradients, moments, weights)
            return (optax.apply_updates(weights, updates), moments), loss

        self.train_step = jax.jit(train_step, donate_argnums=0)

    def use(self, make_state: Any, step: int) -> None:
        """Goes on with what `make_state` makes on the slices that are active."""
        total = self.manager.total_slice_count
        self.mesh = Mesh(np.array(self.manager.active_devices), ("data",))
        # As many examples a slice as before; the learning rate follows the batch.
        self.batch, rate = self.manager.scaled(BATCH_A_SLICE * total, 3e-3, rule="sqrt")
        self.step, self.state = step, make_state(self.mesh, self.optimizer)
        rates = self.state[1].hyperparams
        rates["learning_rate"] = jax.device_put(
            np.float32(rate), rates["learning_rate"].sharding
        )

    def resume(self) -> None:
        mesh = Mesh(np.array(self.manager.active_devices), ("data",))
        step, state, _ = self.manager.get_resharded_snapshot(mesh)
        self.use(lambda *_: state, step)

    def resumed(self, kind: str, begun: float) -> None:
        self.losses = {s: value for s, value in self.losses.items() if s < self.step}
        self.events.append({"kind": kind, "step": self.step})
        slices = sorted(self.manager.active_slice_indices)
        milliseconds = (time.perf_counter() - begun) * 1e3
        print(f"step {self.step}: {kind}, on slices {slices} after {milliseconds:.0f} ms")

    def one_step(self) -> None:
        begin = self.step * self.batch % (len(self.pixels) - self.batch)
        chosen = slice(begin, begin + self.batch)
        pixels, labels = jax.device_put(
            (self.pixels[chosen], self.labels[chosen]), NamedSharding(self.mesh, P("data"))
        )
        self.state, loss = self.train_step(self.state, pixels, labels)
        self.losses[self.step] = float(loss)
        self.step += 1

    def run(self, kill_at: int | None, victim: int) -> None:
        manager = self.manager
        manager.maybe_snapshot(self.step, self.state, force=True)
        deadline = time.monotonic() + RETURN_SECONDS
        while self.step < self.steps or manager.inactive_slice_indices:
            if self.step >= self.steps and time.monotonic() > deadline:
                raise TimeoutError("the lost slice did not come back: causeway restore slice N")
            try:
                self.one_step()
                if self.step == kill_at:
                    kill_at = None
                    kill(victim)
                manager.maybe_snapshot(self.step, self.state)
                begun = time.perf_counter()
                if manager.maybe_reshard_up(self.step, lambda: self.resume() or True, self.state):
                    self.resumed("back", begun)
            except jax.errors.JaxRuntimeError as error:
                print(f"step {self.step}: {str(error).splitlines()[0]}")
                begun = time.perf_counter()
                manager.maybe_reshard_down(error, self.resume)
                self.resumed("lost", begun)

    def accuracy(self) -> float:
        weights = jax.tree.map(np.asarray, self.state[0])
        scores = np.maximum(self.pixels @ weights["hidden"], 0) @ weights["out"]
        return float((scores.argmax(axis=-1) == self.labels).mean())


def kill(victim: int) -> None:
    """Ends the processes of a slice on this machine, as a failing machine would."""
    with urllib.request.urlopen(find_ops_url() + "/status") as answer:
        workers = json.load(answer)["workers"]
    for worker in workers:
        if worker["slice"] == victim:
            os.kill(worker["pid"], signal.SIGKILL)


def draw(losses: dict[int, float], events: list[dict[str, Any]], file: Path) -> None:
    """The loss curve as a PNG, with a line where a slice was lost and where it came back."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4))
    axes.plot(list(losses), list(losses.values()), linewidth=1)
    for event in events:
        color = "tab:red" if event["kind"] == "lost" else "tab:green"
        axes.axvline(event["step"], color=color, linestyle="--")
        axes.annotate(f" slice {event['kind']}", (event["step"], axes.get_ylim()[1]), va="top")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_yscale("log")
    figure.tight_layout()
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--snapshot-every", type=int, default=10)
    parser.add_argument("--kill-at", type=int, help="step at which to kill a slice")
    parser.add_argument("--victim", type=int, default=1, help="which slice")
    parser.add_argument("--png", type=Path, help="where to draw the losses (needs matplotlib)")
    parser.add_argument("--json", type=Path, help="where to write losses and events")
    arguments = parser.parse_args()

    manager = elastic.Manager(
        snapshot_period=arguments.snapshot_every, max_elastic_down_event_count=10
    )
    training = Training(manager, arguments.steps)
    print(f"{len(jax.devices())} devices in {manager.total_slice_count} slices")
    training.run(arguments.kill_at, arguments.victim)
    accuracy = training.accuracy()
    print(
        f"{training.step} steps, loss {training.losses[0]:.3f} to "
        f"{training.losses[training.step - 1]:.4f}, {accuracy:.1%} of the digits right"
    )
    if arguments.json:
        report = {"losses": list(training.losses.values()), "events": training.events,
                  "accuracy": accuracy}
        arguments.json.write_text(json.dumps(report))
    if arguments.png:
        draw(training.losses, training.events, arguments.png)
        print(f"drawn: {arguments.png}")


if __name__ == "__main__":
    main()
