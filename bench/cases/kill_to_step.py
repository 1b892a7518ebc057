"""From SIGKILL of a worker to the next good training step, against a restart from a checkpoint."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import clients, comparison, measure, processes, stats, systems
from harness.report import Report

TITLE = "kill to step: one of three slices is killed while a program trains on all"
SLICES = 3
_LIMIT_SECONDS = 90.0
_CASE = "kill_to_step"
STEPPED = "next good step"
LOST = "steps lost"


def run(options: comparison.Options) -> Report:
    """Three ways to go on, by turns; the third is what there is without a runtime like this one."""
    ways: dict[str, Callable[[], dict[str, float]]] = {
        "with fewer slices": lambda: on_causeway("shrink", await_return=True),
        "with a hot spare": lambda: on_causeway("spare"),
        "restart from a checkpoint": _restart,
    }
    rows: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for turn in range(1 if options.quick else min(options.pairs, 10)):
        for way in list(ways) if turn % 2 == 0 else list(ways)[::-1]:
            print(f"{_CASE}: round {turn + 1}, {way}", file=sys.stderr)
            rows[way].append(ways[way]())
    report = Report(_CASE, TITLE, unit="ms after the kill")
    for way, found in rows.items():
        for phase in found[0]:
            values = [row[phase] * (1 if phase == LOST else 1e3) for row in found]
            report.add(f"{way}: {phase}", median=statistics.median(values), least=min(values),
                       most=max(values), runs=len(values))
    peer = [row[STEPPED] for row in rows["restart from a checkpoint"]]
    for way in list(ways)[:2]:
        ratio, low, high = stats.paired_ratio(peer, [row[STEPPED] for row in rows[way]])
        report.note(f"{STEPPED} {way}: {ratio:.0f} times sooner than after a restart "
                    f"[{low:.0f}-{high:.0f}]")
    report.note(
        "The client is a loop of stock JAX that keeps a host copy of each step's result: on an "
        "error that says DATA_LOSS it goes on from the newest, on the slices that are left or, "
        "with a spare, on all; no program is compiled for that, which is checked. Detect, fence "
        "and abort, epoch (new XLA clients, arrays adopted) and their sum are the head's and "
        "workers' own times; placing, re-binding (a first step's excess over the one after it) "
        "and steps are the client's. The restart is multi-controller JAX with gloo: all "
        "processes are ended at the very moment of the death, and as many as slices are left start "
        "again, restore an Orbax checkpoint and step."
    )
    return report


# ---------------------------------------------------------------- Causeway


def on_causeway(
    way: str, slices: int = SLICES, await_return: bool = False
) -> dict[str, float]:
    """Seconds from the kill to each phase, on a cluster of its own."""
    from causeway.cluster import head_api

    with systems.causeway(slices=slices, spares=int(way == "spare")) as cluster:
        workers = head_api.status(cluster.ops_url)["workers"]
        config = {"way": way, "victim": int(workers[-1]["pid"]), "ops_url": cluster.ops_url,
                  "slices": slices, "await_return": await_return}
        return clients.run(_CASE, cluster, config)


def client(config: dict[str, Any]) -> dict[str, float]:
    if config["way"] == "peer":
        return _peer(config)
    import jax
    import numpy as np

    from causeway.cluster import head_api

    slices: dict[int, list[Any]] = {}
    for device in jax.devices():
        slices.setdefault(device.slice_index, []).append(device)
    count = config["slices"]
    measure.check(len(slices) == count, f"{len(slices)} slices")
    step, place = _training(count)
    everyone, left = sorted(slices), sorted(slices)[:-1]

    def put(chosen: list[int], *weights: Any) -> tuple[Any, Any]:
        return place([d for index in chosen for d in slices[index]], *weights)

    # Both programs are compiled before anything fails, as a job that has run for a while has them.
    for chosen in (left, everyone):
        weights, data = put(chosen)
        for _ in range(5):
            weights, total = step(weights, data)
        float(total)
    compiles = head_api.status(config["ops_url"])["counters"]["compiles_total"]

    begun = kept = 0
    copy = np.asarray(weights)

    def once() -> None:
        nonlocal weights, copy, begun, kept
        begun += 1
        weights, _ = step(weights, data)
        copy, kept = np.asarray(weights), begun

    killed, seen = measure.kill_under(config["victim"], once, _LIMIT_SECONDS)
    weights, data = put(everyone if config["way"] == "spare" else left, copy)
    placed = time.time()
    weights, total = step(weights, data)
    value = float(total)
    resumed = time.time()
    weights, total = step(weights, data)
    float(total)
    another = time.time() - resumed
    expected = float(copy.sum())
    measure.check(abs(value - expected) <= 1e-3 * abs(expected) + 1e-6, f"{value} after {expected}")
    status = head_api.status(config["ops_url"])
    measure.check(status["counters"]["compiles_total"] == compiles, "something was compiled")
    recovery = status["recovery"]
    phases = {
        "detect": recovery["time"] - killed,
        "fence and abort": recovery["drain_seconds"],
        "epoch: new XLA client": recovery["client_seconds"],
        "epoch: adopt arrays": recovery["adopt_seconds"],
        "kill to all in the epoch": recovery["time"] + recovery["opened_seconds"] - killed,
        "kill to error at the client": seen - killed,
        "place state and batch": placed - seen,
        "re-bind": max(0.0, resumed - placed - another),
        "first step": another,
        STEPPED: resumed - killed,
        LOST: float(begun - kept),
    }
    measure.check(begun - kept <= 1, f"{begun - kept} steps were lost")
    if not config["await_return"]:
        return phases
    # Until the killed worker is back, programs on all slices fail, and say so quickly.
    while True:
        try:
            weights, data = put(everyone)
            weights, total = step(weights, data)
            value = float(total)
            break
        except jax.errors.JaxRuntimeError:
            if time.time() > killed + _LIMIT_SECONDS:
                raise
            time.sleep(0.01)
    phases["first step on all slices again"] = time.time() - killed
    measure.check(value == 256.0, f"the first step on all slices gave {value}")
    return phases


def _training(slices: int = SLICES) -> tuple[Any, Any]:
    """The step, and what puts weights and data on the devices of so many slices or one less."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    @jax.jit
    def step(weights, data):
        gradient = jax.grad(lambda w: jnp.mean((data @ w) ** 2))(weights)
        return weights - 0.01 * gradient, jnp.sum(weights)

    rows, host = np.ones((slices * (slices - 1) * 4, 16), np.float32), np.ones((16, 16), np.float32)

    def place(devices: list[Any], weights: Any = host) -> tuple[Any, Any]:
        mesh = Mesh(np.array(devices), ("data",))
        data = jax.make_array_from_callback(
            rows.shape, NamedSharding(mesh, P("data")), lambda index: rows[index]
        )
        everywhere = NamedSharding(mesh, P())
        return jax.make_array_from_callback(host.shape, everywhere, lambda i: weights[i]), data

    return step, place


# ---------------------------------------------------------------- the peer


def _restart() -> dict[str, float]:
    """Multi-controller JAX: everything is started again when one process dies."""
    with tempfile.TemporaryDirectory() as folder:
        first = _start_peers(SLICES, Path(folder), again=False)
        again: list[subprocess.Popen] = []
        try:
            _await(Path(folder) / "ready-0", first)
            time.sleep(0.2)
            killed = time.time()
            for child in first[::-1]:  # the victim, and at once all who would wait for it
                child.kill()
                child.wait()
            again = _start_peers(SLICES - 1, Path(folder), again=True)
            _await(Path(folder) / "stepped-0", again)
            stepped = float((Path(folder) / "stepped-0").read_text())
            return {STEPPED: stepped - killed}
        finally:
            for child in [*first, *again]:
                processes.end(child)


def _start_peers(count: int, folder: Path, again: bool) -> list[subprocess.Popen]:
    system = systems.multi_controller(count)
    entry = Path(__file__).resolve().parent.parent / "client.py"
    config = {"way": "peer", "clients": count, "folder": str(folder), "again": again,
              "coordinator": f"127.0.0.1:{systems.free_port()}"}
    with (folder / "log").open("ab") as log:
        return [
            subprocess.Popen(
                [sys.executable, str(entry), _CASE, json.dumps({**config, "rank": rank})],
                env=system.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
            for rank in range(count)
        ]


def _await(file: Path, children: list[subprocess.Popen]) -> None:
    deadline = time.time() + _LIMIT_SECONDS
    while not file.exists():
        if time.time() > deadline or any(child.poll() for child in children):
            log = (file.parent / "log").read_text(errors="replace")[-3000:]
            raise clients.ClientFailed(f"{_CASE}: a peer has ended or takes too long: {log}")
        time.sleep(0.001)


def _peer(config: dict[str, Any]) -> dict[str, float]:
    measure.join(config)
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    folder = Path(config["folder"])
    step, place = _training()
    weights, data = place(jax.devices())
    with ocp.StandardCheckpointer() as checkpointer:
        if config["again"]:
            shape = jax.ShapeDtypeStruct(weights.shape, weights.dtype, sharding=weights.sharding)
            weights = checkpointer.restore(folder / "checkpoint", {"weights": shape})["weights"]
        else:
            checkpointer.save(folder / "checkpoint", {"weights": weights})
    weights, total = step(weights, data)
    value = float(total)
    now = time.time()
    measure.check(value == 256.0, f"a step gave {value}")
    name = "stepped" if config["again"] else "ready"
    temporary = folder / f"{name}-{config['rank']}.new"
    temporary.write_text(repr(now))
    temporary.replace(folder / f"{name}-{config['rank']}")
    while not config["again"]:
        weights, total = step(weights, data)
        measure.check(bool(np.isfinite(float(total))), "a step is not finite")
    return {}
