"""Trains a small transformer to continue Python source text, character by character.

Stock JAX and Optax: the same file runs on one local device, on several, and on a cluster of
several slices. Batches are split over the mesh axis "data" (across slices), weights over the axis
"model" (inside a slice, where devices are close to each other). The text is Python's own standard
library, which every machine that can run this has.

    python examples/train_lm.py                          # this machine's devices
    causeway run --slices 2 -- python examples/train_lm.py    # two slices
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

VOCABULARY = 128  # ASCII; anything else is read as the last character


@dataclasses.dataclass(frozen=True)
class Model:
    width: int
    layers: int
    heads: int

    @property
    def head_width(self) -> int:
        return self.width // self.heads


# ---------------------------------------------------------------- text


def read_text(bytes_max: int) -> np.ndarray:
    """The first `bytes_max` characters of the standard library's modules in sorted order."""
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    parts: list[bytes] = []
    size = 0
    for file in files:
        if size >= bytes_max:
            break
        parts.append(file.read_bytes())
        size += len(parts[-1])
    text = np.frombuffer(b"".join(parts), np.uint8)[:bytes_max]
    return np.minimum(text, VOCABULARY - 1).astype(np.int32)


def batches(text: np.ndarray, batch: int, length: int, seed: int) -> Iterator[np.ndarray]:
    """Random excerpts of length + 1 characters: the same for the same seed, on any devices."""
    rng = np.random.default_rng(seed)
    offsets = np.arange(length + 1)
    while True:
        starts = rng.integers(0, len(text) - length - 1, size=batch)
        yield text[starts[:, None] + offsets]


# ---------------------------------------------------------------- model


def layouts(mesh: Mesh) -> dict[str, NamedSharding]:
    """Where each weight lies: attention by head, the MLP by hidden unit, the rest everywhere."""
    specs = {
        "embedding": P(),
        "attention_norm": P(),
        "qkv": P(None, None, None, "model", None),
        "out": P(None, "model", None, None),
        "mlp_norm": P(),
        "up": P(None, None, "model"),
        "down": P(None, "model", None),
        "final_norm": P(),
    }
    return {name: NamedSharding(mesh, spec) for name, spec in specs.items()}


def initial_parameters(model: Model, key: jax.Array) -> dict[str, jax.Array]:
    n, d, h, k = model.layers, model.width, model.heads, model.head_width
    keys = iter(jax.random.split(key, 5))

    def normal(shape: tuple[int, ...], fan_in: int) -> jax.Array:
        return jax.random.normal(next(keys), shape) / math.sqrt(fan_in)

    return {
        "embedding": normal((VOCABULARY, d), d),
        "attention_norm": jnp.ones((n, d)),
        "qkv": normal((n, d, 3, h, k), d),
        "out": normal((n, h, k, d), d * 2 * n),
        "mlp_norm": jnp.ones((n, d)),
        "up": normal((n, d, 4 * d), d),
        "down": normal((n, 4 * d, d), 4 * d * 2 * n),
        "final_norm": jnp.ones(d),
    }


def normalise(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6) * scale


def rotate(x: jax.Array) -> jax.Array:
    """Rotary positions: turns pairs of features by an angle that grows with the position."""
    length, half = x.shape[1], x.shape[-1] // 2
    frequency = 10_000.0 ** (-jnp.arange(half) / half)
    angle = jnp.arange(length)[:, None, None] * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    left, right = x[..., :half], x[..., half:]
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


def block(x: jax.Array, weights: dict[str, jax.Array]) -> jax.Array:
    qkv = jnp.einsum("btd,dchk->cbthk", normalise(x, weights["attention_norm"]), weights["qkv"])
    mixed = jax.nn.dot_product_attention(rotate(qkv[0]), rotate(qkv[1]), qkv[2], is_causal=True)
    x = x + jnp.einsum("bthk,hkd->btd", mixed, weights["out"])
    hidden = jax.nn.gelu(normalise(x, weights["mlp_norm"]) @ weights["up"])
    return x + hidden @ weights["down"]


def loss_of(parameters: dict[str, jax.Array], excerpts: jax.Array) -> jax.Array:
    """Mean cross entropy of the next character, in nats."""
    x = parameters["embedding"][excerpts[:, :-1]]
    stacked = {
        name: parameters[name]
        for name in ("attention_norm", "qkv", "out", "mlp_norm", "up", "down")
    }
    x, _ = jax.lax.scan(lambda x, weights: (block(x, weights), None), x, stacked)
    scores = normalise(x, parameters["final_norm"]) @ parameters["embedding"].T
    return optax.softmax_cross_entropy_with_integer_labels(scores, excerpts[:, 1:]).mean()


# ---------------------------------------------------------------- devices


def make_mesh(heads: int) -> Mesh:
    """Tensor parallel inside a slice as far as the heads allow; the rest is data parallel."""
    slices: dict[int, list[jax.Device]] = {}
    for device in jax.devices():
        slices.setdefault(getattr(device, "slice_index", 0) or 0, []).append(device)
    smallest = min(map(len, slices.values()))
    grid = np.array([slices[index][:smallest] for index in sorted(slices)])
    return Mesh(grid.reshape(-1, math.gcd(smallest, heads)), ("data", "model"))


# ---------------------------------------------------------------- training


class Trainer:
    """The state on the devices, and the two programs that make and advance it."""

    def __init__(self, model: Model, mesh: Mesh, optimizer: Any, seed: int) -> None:
        self._data = NamedSharding(mesh, P("data"))
        everywhere = NamedSharding(mesh, P())
        weights = layouts(mesh)

        def initial(key: jax.Array) -> tuple[Any, Any]:
            parameters = initial_parameters(model, key)
            return parameters, optimizer.init(parameters)

        def step(state: tuple[Any, Any], excerpts: jax.Array) -> tuple[tuple[Any, Any], jax.Array]:
            parameters, moments = state
            loss, gradients = jax.value_and_grad(loss_of)(parameters, excerpts)
            updates, moments = optimizer.update(gradients, moments, parameters)
            return (optax.apply_updates(parameters, updates), moments), loss

        key = jax.random.key(seed)
        _, moments = jax.eval_shape(initial, key)
        # The optimizer's moments lie like the weights they belong to.
        of_moments = optax.tree_utils.tree_map_params(
            optimizer, lambda _, layout: layout, moments, weights,
            transform_non_params=lambda _: everywhere,
        )
        state = (weights, of_moments)
        self._step = jax.jit(
            step,
            in_shardings=(state, self._data),
            out_shardings=(state, everywhere),
            donate_argnums=0,
        )
        self._state = jax.jit(initial, out_shardings=state)(key)

    @property
    def state(self) -> tuple[Any, Any]:
        """Parameters and moments; the next step takes them over."""
        return self._state

    def train(self, excerpts: np.ndarray) -> jax.Array:
        """Queues one step and returns its loss, which exists some time later."""
        self._state, loss = self._step(self._state, jax.device_put(excerpts, self._data))
        return loss


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    model = Model(arguments.d_model, arguments.layers, arguments.heads)
    if model.width % (2 * model.heads):
        raise SystemExit("--d-model must be a multiple of twice --heads")
    mesh = make_mesh(model.heads)
    if arguments.batch % mesh.shape["data"]:
        raise SystemExit(f"--batch must be a multiple of the data axis, {mesh.shape['data']}")
    text = read_text(int(arguments.text_mb * 1e6))
    # A constant rate, so that a short run is the beginning of a long one.
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(arguments.lr))
    trainer = Trainer(model, mesh, optimizer, arguments.seed)
    print(
        f"{len(text):,} characters; mesh {dict(mesh.shape)} of {mesh.devices.flat[0].device_kind} "
        f"devices, platform {jax.default_backend()}",
        flush=True,
    )

    losses: list[float] = []
    pending: list[jax.Array] = []
    begun = math.nan
    source = batches(text, arguments.batch, arguments.seq, arguments.seed)
    for step in range(1, arguments.steps + 1):
        pending.append(trainer.train(next(source)))
        # Between two lines of the log nothing waits: Python runs ahead of the devices.
        if step == 1 or step % arguments.log_every == 0 or step == arguments.steps:
            losses += [float(loss) for loss in jax.device_get(pending)]
            pending.clear()
            if step == 1:
                begun = time.perf_counter()  # the first step includes compilation
                print(f"step     1: loss {losses[-1]:.4f}", flush=True)
                continue
            rate = (step - 1) / (time.perf_counter() - begun)
            tokens = rate * arguments.batch * arguments.seq
            print(
                f"step {step:5d}: loss {losses[-1]:.4f}, "
                f"{rate:.2f} steps/s, {tokens:,.0f} tokens/s",
                flush=True,
            )
    seconds = time.perf_counter() - begun
    return {
        "losses": losses,
        "mesh": dict(mesh.shape),
        "seconds_after_first_step": seconds,
        "steps_per_second": (arguments.steps - 1) / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16, help="excerpts a step")
    parser.add_argument("--seq", type=int, default=64, help="characters an excerpt")
    parser.add_argument("--d-model", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--text-mb", type=float, default=2.0, help="megabytes of text to read")
    parser.add_argument("--log-every", type=int, default=10, help="steps between two log lines")
    parser.add_argument("--json", type=Path, help="write the loss of every step to this file")
    arguments = parser.parse_args()
    if arguments.steps < 1:
        parser.error("--steps must be at least 1")
    report = train(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
