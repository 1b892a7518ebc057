"""What it costs to be ready for the loss of a slice, while none is lost."""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from harness import comparison, measure, stats, systems
from harness.report import Report

TITLE = "protection without a fault: examples/train_lm.py on two slices"
_CASE = "protection"
_BATCH, _LENGTH = 16, 64
_WARM_STEPS = 20
_PERIOD = 50  # steps between two snapshots, and in a block


def run(options: comparison.Options) -> Report:
    with systems.causeway(slices=2) as cluster:
        results = comparison.interleave(
            _CASE, [cluster],
            {"blocks": 2, "period": 5} if options.quick else {"blocks": 12, "period": _PERIOD},
            options,
        )[cluster.name]
    bare = [value for result in results for value in result["bare"]]
    guarded = [value for result in results for value in result["guarded"]]
    ratio, low, high = stats.paired_ratio(guarded, bare)
    report = Report(_CASE, TITLE, unit="us a step")
    report.add("without", median=statistics.median(bare), blocks=len(bare))
    report.add("with", median=statistics.median(guarded), blocks=len(guarded))
    report.data["ratio"] = {"median": ratio, "low": low, "high": high}
    report.note(
        f"With protection a step takes {ratio:.3f} [{low:.3f}-{high:.3f}] times as long: "
        f"causeway.elastic.Manager copies weights and moments inside the cluster every {_PERIOD} "
        "steps and asks after every step whether a slice has come back. Blocks of as many steps "
        "take turns in one process; the loss is read at the end of each."
    )
    return report


def client(config: dict[str, Any]) -> dict[str, list[float]]:
    sys.path.insert(0, str(systems.ROOT / "examples"))
    import jax
    import numpy as np
    import optax
    import train_lm
    from jax.sharding import Mesh

    from causeway import elastic

    mesh = Mesh(np.array(jax.devices()).reshape(-1, 1), ("data", "model"))
    model = train_lm.Model(width=64, layers=2, heads=4)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(3e-3))
    trainer = train_lm.Trainer(model, mesh, optimizer, seed=0)
    source = train_lm.batches(train_lm.read_text(500_000), _BATCH, _LENGTH, seed=0)
    period = config["period"]
    manager = elastic.Manager(snapshot_period=period)
    steps = 0

    def block(guarded: bool, count: int = period) -> float:
        """Seconds a step."""
        nonlocal steps
        begin = time.perf_counter()
        for _ in range(count):
            loss = trainer.train(next(source))
            steps += 1
            if guarded:
                manager.maybe_snapshot(steps, trainer.state)
                resized = manager.maybe_reshard_up(steps, lambda: None, trainer.state)
                measure.check(resized is None, "a slice came back that was never gone")
        measure.check(bool(np.isfinite(float(loss))), "a loss is not finite")
        return (time.perf_counter() - begin) / count

    block(False, _WARM_STEPS)
    block(True)
    found: dict[str, list[float]] = {"bare": [], "guarded": []}
    for turn in range(config["blocks"]):
        for guarded in (False, True) if turn % 2 == 0 else (True, False):
            steps = period // 2  # the snapshot falls into the middle of the block, and ends there
            found["guarded" if guarded else "bare"].append(block(guarded) * 1e6)
    manager.close()
    return found
