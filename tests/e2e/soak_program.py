"""A training that goes on through losses of slices and of its process, and tells what it holds.

soak_program.py FOLDER SECONDS: every few steps it prints {"step", "digest"} of all its state as
JSON, and writes a checkpoint for its successor. After CYCLE steps it begins anew, so a digest is a
function of the step alone. {"fault"} tells of a launch that was spoiled on purpose on one worker
while others were in flight. Waits SECONDS at most for slices to return. Ends when FOLDER/stop
exists.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from causeway import elastic

CYCLE = 60
EVERY = 5  # steps between two digests, and between two snapshots
CHECKPOINT_EVERY = 20


def first_state() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {"w": rng.standard_normal((36, 16), np.float32), "m": np.zeros((36, 16), np.float32)}


def batch(step: int) -> np.ndarray:
    return np.random.default_rng(step).standard_normal((24, 36), np.float32)


def shardings(mesh: Mesh) -> dict[str, NamedSharding]:
    """Moments are cut over all slices, as optimizers' states are; weights are everywhere."""
    return {"w": NamedSharding(mesh, P()), "m": NamedSharding(mesh, P("data"))}


def update(state: dict[str, jax.Array], x: jax.Array) -> dict[str, jax.Array]:
    gradient = jax.grad(lambda w: jnp.mean(jnp.tanh(x @ w) ** 2))(state["w"])
    moments = 0.9 * state["m"] + gradient
    return {"w": state["w"] - 0.05 * moments, "m": moments}


def main() -> int:
    folder = Path(sys.argv[1])
    checkpoint, stop = folder / "checkpoint.npz", folder / "stop"
    manager = elastic.Manager(snapshot_period=EVERY)
    compiled: dict[int, Any] = {}

    def begin(mesh: Mesh) -> tuple[int, Any]:
        """From the snapshot in the cluster, else from the checkpoint, else from the start."""
        try:
            step, state, _ = manager.get_resharded_snapshot(mesh)
            return step, state
        except elastic.ElasticRuntimeError:
            step, host = 0, first_state()
        if checkpoint.exists():
            with np.load(checkpoint) as saved:
                step, host = int(saved["step"]), {"w": saved["w"], "m": saved["m"]}
        return step, jax.device_put(host, shardings(mesh))

    def train() -> None:
        mesh = Mesh(np.array(manager.active_devices), ("data",))
        if mesh.size not in compiled:
            compiled[mesh.size] = jax.jit(
                update, donate_argnums=0, out_shardings=shardings(mesh)
            )
        run = compiled[mesh.size]
        rows = NamedSharding(mesh, P("data"))
        step, state = begin(mesh)
        manager.maybe_snapshot(step, state, force=True)
        while not stop.exists():
            if step == CYCLE:
                step, state = 0, jax.device_put(first_state(), shardings(mesh))
            state = run(state, jax.device_put(batch(step), rows))
            step += 1
            if step % EVERY == 0:
                host = {name: np.asarray(leaf) for name, leaf in state.items()}
                digest = hashlib.sha256(host["w"].tobytes() + host["m"].tobytes()).hexdigest()
                print(json.dumps({"step": step, "digest": digest}), flush=True)
                if step % CHECKPOINT_EVERY == 0:
                    with checkpoint.with_suffix(".new").open("wb") as file:
                        np.savez(file, step=step, **host)
                    checkpoint.with_suffix(".new").replace(checkpoint)
                manager.maybe_snapshot(step, state)

    attempt = manager.elastic_retry(timeout=float(sys.argv[2]))(train)
    while True:
        try:
            attempt()
            return 0
        except jax.errors.JaxRuntimeError as error:
            if "fault injection" not in str(error):
                raise
            print(json.dumps({"fault": str(error)}), flush=True)
            error.__traceback__ = None  # it holds the arrays of the failed attempt


if __name__ == "__main__":
    sys.exit(main())
