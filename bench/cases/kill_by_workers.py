"""From SIGKILL of a worker to the next good step, by the number of workers."""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from harness import clients, comparison, emulated, measure
from harness.report import Report

from cases import kill_to_step

TITLE = "kill to step by the number of workers: one is killed, the others go on"
_REAL, _QUICK_REAL = (3, 6, 12), (3,)
_EMULATED, _QUICK_EMULATED = (3, 12, 64, 512), (4,)
_CASE = "kill_by_workers"
_DETECT, _OPENED = "detect", "kill to all in the epoch"
_ERROR = "kill to error at the client"
_LIMIT_SECONDS = 60.0


def run(options: comparison.Options) -> Report:
    report = Report(_CASE, TITLE, unit="ms after the kill")
    turns = 1 if options.quick else min(options.pairs, 5)
    rows: dict[str, list[dict[str, float]]] = {}
    for turn in range(turns):
        for count in _QUICK_REAL if options.quick else _REAL:
            print(f"{_CASE}: round {turn + 1}/{turns}, {count} workers", file=sys.stderr)
            found = kill_to_step.on_causeway("shrink", slices=count)
            rows.setdefault(f"{count} workers", []).append(found)
        for count in _QUICK_EMULATED if options.quick else _EMULATED:
            print(f"{_CASE}: round {turn + 1}/{turns}, {count} emulated", file=sys.stderr)
            rows.setdefault(f"{count} emulated hosts", []).append(_emulated(count))
    for label, found in rows.items():
        report.add(label, **{
            name: statistics.median(row[key] for row in found) * 1e3
            for name, key in (("detect", _DETECT), ("all_in_the_epoch", _OPENED),
                              ("error", _ERROR), ("next_good_step", kill_to_step.STEPPED))
        }, runs=len(found))
    report.note(
        "All workers share this machine's cores, and each of the real ones makes a new XLA client, "
        "so what grows with their number here would be done by as many machines. Emulated hosts "
        "answer at once and have nobody who listens for their death: what is left is the head, its "
        "network and a stock client whose arrays lie on all of them."
    )
    return report


def _emulated(hosts: int) -> dict[str, float]:
    with emulated.cluster(hosts, 1, groups=(hosts - 1, 1)) as (system, groups):
        config = {"hosts": hosts, "victim": groups[1].pid, "ops_url": system.ops_url}
        return clients.run(_CASE, system, config)


def client(config: dict[str, Any]) -> dict[str, float]:
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    from causeway.cluster import head_api

    devices = jax.devices()
    measure.check(len(devices) == config["hosts"], f"{len(devices)} devices")

    def emulated_outputs_1(value):
        return value + 1

    step = jax.jit(emulated_outputs_1)

    def put(chosen: list[Any]) -> jax.Array:
        return jax.device_put(np.float32(0), NamedSharding(Mesh(np.array(chosen), ("all",)), P()))

    for chosen in (devices[:-1], devices):
        value = put(chosen)
        for _ in range(5):
            value = step(value)
        value.block_until_ready()

    def once() -> None:
        nonlocal value
        value = step(value)
        value.block_until_ready()

    killed, seen = measure.kill_under(config["victim"], once, _LIMIT_SECONDS)
    value = step(put(devices[:-1]))
    value.block_until_ready()
    stepped = time.time()
    recovery = head_api.status(config["ops_url"])["recovery"]
    return {
        _DETECT: recovery["time"] - killed,
        _OPENED: recovery["time"] + recovery["opened_seconds"] - killed,
        _ERROR: seen - killed,
        kill_to_step.STEPPED: stepped - killed,
    }
