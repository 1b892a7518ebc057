"""Trains through the loss and the return of a slice with stock pathwaysutils and Orbax.

    causeway run --slices 3 -- python examples/train_elastic_pathwaysutils.py

Nothing here knows of Causeway. Take a slice away from another terminal and give it back:
causeway kill slice 1, causeway restore slice 1. After a loss, and to take a slice back, the
decorated function starts anew from the last checkpoint, in the same process.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pathwaysutils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from pathwaysutils.elastic.manager import Manager, ScaleUpSignalError
from sklearn.datasets import load_digits

BATCH = 192  # divides among the devices of any number of slices

_optimizer = optax.adam(3e-3)


def first_state() -> Any:
    rng = np.random.default_rng(0)
    weights = {
        "hidden": (rng.standard_normal((64, 256)) / 8).astype(np.float32),
        "out": (rng.standard_normal((256, 10)) / 16).astype(np.float32),
    }
    return weights, _optimizer.init(weights)


def loss_of(weights: Any, pixels: jax.Array, labels: jax.Array) -> jax.Array:
    scores = jax.nn.relu(pixels @ weights["hidden"]) @ weights["out"]
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


@jax.jit
def train_step(state: Any, pixels: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
    weights, moments = state
    loss, gradients = jax.value_and_grad(loss_of)(weights, pixels, labels)
    updates, moments = _optimizer.update(gradients, moments, weights)
    return (optax.apply_updates(weights, updates), moments), loss


def train(
    manager: Manager, checkpoints: ocp.CheckpointManager, arguments: Any, report: dict[str, Any]
) -> None:
    """One attempt: from the last checkpoint to the end, on the slices that are up."""
    active = sorted(manager.active_slice_indices)
    mesh = Mesh(np.array([d for i in active for d in manager.slice_to_devices[i]]), ("data",))
    everywhere, over_devices = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    digits = load_digits()
    images, targets = (digits.data / 16.0).astype(np.float32), digits.target.astype(np.int32)

    state = jax.device_put(first_state(), everywhere)
    step = 0
    if checkpoints.latest_step() is not None:
        step = checkpoints.latest_step()
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), state
        )
        state = checkpoints.restore(step, args=ocp.args.StandardRestore(shapes))
    report["attempts"].append({"step": step, "slices": active})
    print(f"step {step}: on slices {active}", flush=True)
    while step < arguments.steps or len(report["attempts"]) < arguments.attempts:
        begin = step * BATCH % (len(images) - BATCH)
        pixels, labels = jax.device_put(
            (images[begin : begin + BATCH], targets[begin : begin + BATCH]), over_devices
        )
        state, loss = train_step(state, pixels, labels)
        report["losses"][step] = float(loss)
        step += 1
        if step % arguments.checkpoint_every == 0:
            checkpoints.save(step, args=ocp.args.StandardSave(state))
            checkpoints.wait_until_finished()
            if manager.available_inactive_slices:
                raise ScaleUpSignalError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--checkpoint-every", type=int, default=20)
    parser.add_argument("--attempts", type=int, default=1,
                        help="go on until the training has started this often")
    parser.add_argument("--json", type=Path, help="where to write losses and attempts")
    arguments = parser.parse_args()
    logging.getLogger("pathwaysutils").setLevel(logging.CRITICAL)  # it prints each loss at length
    pathwaysutils.initialize()

    manager = Manager()
    report: dict[str, Any] = {"losses": {}, "attempts": []}
    print(f"{len(jax.devices())} devices in {manager.total_slice_count} slices", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        with ocp.CheckpointManager(folder, options=options) as checkpoints:
            retry = manager.elastic_retry(minimum_slice_count=1, poll_interval=0.5, timeout=60)
            retry(train)(manager, checkpoints, arguments, report)
    losses = list(report["losses"].values())
    print(f"{len(losses)} steps, loss {losses[0]:.3f} to {losses[-1]:.4f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({**report, "losses": losses}))


if __name__ == "__main__":
    main()
