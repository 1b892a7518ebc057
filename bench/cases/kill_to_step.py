"""From SIGKILL of a worker to the next good training step, and back to the full cluster."""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from pathlib import Path
from typing import Any

from harness import clients, comparison, measure, systems
from harness.report import Report

TITLE = "kill to step: one of three slices is killed while a program trains on all"
SLICES = 3
_LIMIT_SECONDS = 60.0


def run(options: comparison.Options) -> Report:
    from causeway.cluster import head_api

    rows: list[dict[str, float]] = []
    repeats = 1 if options.quick else min(options.pairs, 10)
    for _ in range(repeats):
        with systems.causeway(slices=SLICES) as cluster:
            workers = head_api.status(cluster.ops_url)["workers"]
            rows.append(
                clients.run(
                    "kill_to_step", cluster,
                    {"victim": int(workers[-1]["pid"]), "quick": options.quick},
                )
            )
    report = Report("kill_to_step", TITLE, unit="ms after the kill")
    for phase in rows[0]:
        values = [row[phase] * 1e3 for row in rows]
        report.add(phase, median=statistics.median(values), least=min(values), most=max(values),
                   runs=len(values))
    report.note(
        "The client is a loop of stock JAX: on an error that says DATA_LOSS it goes on from its "
        "last host copy on the slices that answer. The worker's restart is the supervisor's."
    )
    return report


def client(config: dict[str, Any]) -> dict[str, float]:
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    slices: dict[int, list[Any]] = {}
    for device in jax.devices():
        slices.setdefault(device.slice_index, []).append(device)
    measure.check(len(slices) == SLICES, f"{len(slices)} slices")

    @jax.jit
    def step(weights, data):
        gradient = jax.grad(lambda w: jnp.mean((data @ w) ** 2))(weights)
        return weights - 0.01 * gradient, jnp.sum(weights)

    rows = np.ones((24, 16), np.float32)
    host = np.ones((16, 16), np.float32)

    def place(chosen: list[int]) -> tuple[Any, Any]:
        mesh = Mesh(np.array([d for index in chosen for d in slices[index]]), ("data",))
        weights = jax.device_put(host, NamedSharding(mesh, P()))
        return weights, jax.device_put(rows, NamedSharding(mesh, P("data")))

    # Both programs are compiled before anything fails, as a job that has run for a while has them.
    everyone, survivors = sorted(slices), sorted(slices)[:-1]
    for chosen in (survivors, everyone):
        weights, data = place(chosen)
        for _ in range(5):
            weights, total = step(weights, data)
        float(total)

    killed: list[float] = []

    def kill() -> None:
        time.sleep(0.2)
        killed.append(time.perf_counter())
        os.kill(config["victim"], signal.SIGKILL)

    threading.Thread(target=kill).start()
    end = time.perf_counter() + _LIMIT_SECONDS
    try:
        while time.perf_counter() < end:
            weights, total = step(weights, data)
            float(total)
        raise TimeoutError("no error came")
    except jax.errors.JaxRuntimeError as error:
        seen = time.perf_counter()
        measure.check("DATA_LOSS" in str(error), f"the error was {error}")
    weights, data = place(survivors)
    weights, total = step(weights, data)
    value = float(total)
    resumed = time.perf_counter()
    measure.check(value == float(host.sum()), f"the first step after the loss gave {value}")
    phases = {"error at the client": seen - killed[0], "next good step": resumed - killed[0]}

    # Until the killed worker is back, programs on all slices fail, and say so quickly.
    while True:
        try:
            weights, data = place(everyone)
            weights, total = step(weights, data)
            value = float(total)
            break
        except jax.errors.JaxRuntimeError:
            if time.perf_counter() > end:
                raise
            time.sleep(0.01)
    phases["first step on all slices again"] = time.perf_counter() - killed[0]
    measure.check(value == float(host.sum()), f"the first step on all slices gave {value}")
    measure.check(not Path(f"/proc/{config['victim']}/exe").exists(), "the victim lives")
    return phases
