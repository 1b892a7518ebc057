"""The language model of examples/train_lm.py: what a training step takes on each system."""

from __future__ import annotations

import sys
from typing import Any

from harness import comparison, measure, systems
from harness.report import Report

TITLE = "training: examples/train_lm.py, data-parallel over two devices"
_BATCH, _LENGTH = 16, 64
_WARM_STEPS = 20
_STEPS_AT_ONCE = 20


def run(options: comparison.Options) -> Report:
    with systems.causeway(slices=2) as two_hosts, systems.causeway(
        devices_per_host=2
    ) as one_host:
        results = comparison.interleave(
            "train_lm",
            [
                systems.renamed(two_hosts, "Causeway, two hosts"),
                systems.renamed(one_host, "Causeway, one host"),
                systems.multi_controller(2),
                systems.local(2),
            ],
            {"quick": options.quick, "seconds": options.seconds * 6},
            options,
        )
    report = Report("train_lm", TITLE, unit="us a step")
    losses = {name: runs[0]["loss"] for name, runs in results.items()}
    for key in ("free", "read"):
        report.compare(key, results, key)
    report.data["loss"] = losses
    if max(losses.values()) - min(losses.values()) > 1e-3:
        raise AssertionError(f"the systems disagree about the loss: {losses}")
    report.note(
        f"free: the loss is read every {_STEPS_AT_ONCE} steps; read: after every step. The loss "
        f"after {_WARM_STEPS} steps is {next(iter(losses.values())):.4f} on all systems, within "
        "0.001. A batch goes to the devices with every step."
    )
    return report


def client(config: dict[str, Any]) -> dict[str, Any]:
    sys.path.insert(0, str(systems.ROOT / "examples"))
    import jax
    import numpy as np
    import optax
    import train_lm
    from jax.sharding import Mesh

    measure.join(config)
    mesh = Mesh(np.array(jax.devices()).reshape(-1, 1), ("data", "model"))
    model = train_lm.Model(width=64, layers=2, heads=4)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(3e-3))
    trainer = train_lm.Trainer(model, mesh, optimizer, seed=0)
    source = train_lm.batches(train_lm.read_text(500_000), _BATCH, _LENGTH, seed=0)
    state: dict[str, Any] = {}

    def issue() -> None:
        state["loss"] = trainer.train(next(source))

    def read() -> float:
        return float(state["loss"])

    for _ in range(_WARM_STEPS):
        issue()
    loss = read()
    measure.check(0 < loss < np.log(train_lm.VOCABULARY), f"a loss of {loss}")
    quick, seconds = config["quick"], config["seconds"]
    size = 5 if quick else _STEPS_AT_ONCE
    return {
        "free": measure.batches({**config, "rounds": 3 if quick else 10}, issue, read, size,
                                seconds),
        "read": measure.each({**config, "rounds": 20 if quick else 150},
                             lambda: (issue(), read()), seconds),
        "loss": loss,
    }
