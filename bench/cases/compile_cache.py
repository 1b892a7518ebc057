"""Time to the first training step: on a cluster that compiles, and on a later one that need not.

And that the workers of a large cluster compile each program once between them.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

from harness import clients, comparison, measure, systems
from harness.report import Report

TITLE = "compile once: from the start of the client to the first step of examples/train_lm.py"
_HOSTS, _QUICK_HOSTS = 12, 3
_PROGRAMS = 6


def run(options: comparison.Options) -> Report:
    results: dict[str, list[dict[str, Any]]] = {"warm": [], "cold": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("cold", "warm"):
                with systems.causeway(slices=2, compile_cache=folder) as cluster:
                    config = {"quick": options.quick, "seconds": 0.0}
                    found = clients.run("compile_cache", cluster, config)
                    counters = systems.counters(cluster)
                found["compiles"] = counters["compiles_total"]
                results[name].append(found)
    report = Report("compile_cache", TITLE, unit="s")
    for key in ("program made to first loss", "import to first loss"):
        report.compare(key, results, key)
    report.data["compiles"] = {k: [r["compiles"] for r in v] for k, v in results.items()}
    for found in results["warm"]:
        measure.check(found["compiles"] == 0, "a warm cluster compiles nothing")
    measure.check(
        all(found["compiles"] > 0 for found in results["cold"]), "a cold cluster compiles"
    )
    report.note(
        "cold: a cluster with an empty folder of compiled programs; warm: the next cluster, head "
        "and workers started anew, with the folder of the first. Tracing and lowering in the "
        f"client are in both. Compiled: {results['cold'][0]['compiles']} programs and 0."
    )
    _compile_on_many_hosts(options, report)
    return report


def _compile_on_many_hosts(options: comparison.Options, report: Report) -> None:
    hosts = _QUICK_HOSTS if options.quick else _HOSTS
    with systems.causeway(hosts_per_slice=hosts) as cluster:
        for session in ("first", "second"):
            config = {"quick": options.quick, "seconds": 0.0, "programs": _PROGRAMS}
            clients.run("compile_cache", cluster, config)
            status = systems.status(cluster)
            compiled = status["counters"]["compiles_total"]
            # Those of the workers come with their heartbeats, so they may be less for a moment.
            by_workers = sum(worker["stats"].get("compiles", 0) for worker in status["workers"])
            report.data[f"{hosts} hosts, {session} session"] = {
                "compiles": compiled, "compiles_of_workers": by_workers,
            }
            if session == "first":
                once = compiled
                measure.check(compiled >= _PROGRAMS, "every program was compiled")
                measure.check(compiled < 2 * _PROGRAMS + hosts, f"{compiled} compiles")
            measure.check(compiled == once, f"the second session compiled {compiled - once}")
            measure.check(by_workers <= compiled, f"workers compiled {by_workers} by themselves")
    report.note(
        f"{hosts} hosts ran {_PROGRAMS} programs over all of them: {once} compiles in the cluster "
        "for the first session (with those of the arguments' making), none for the second."
    )


def client(config: dict[str, Any]) -> dict[str, Any]:
    if "programs" in config:
        return _run_programs(config["programs"])
    started = time.perf_counter()
    import sys

    sys.path.insert(0, str(systems.ROOT / "examples"))
    import jax
    import numpy as np
    import optax
    import train_lm
    from jax.sharding import Mesh

    jax.devices()
    made = time.perf_counter()
    mesh = Mesh(np.array(jax.devices()).reshape(-1, 1), ("data", "model"))
    model = train_lm.Model(width=64, layers=2, heads=4)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(3e-3))
    trainer = train_lm.Trainer(model, mesh, optimizer, seed=0)
    source = train_lm.batches(train_lm.read_text(500_000), 16, 64, seed=0)
    loss = float(trainer.train(next(source)))
    done = time.perf_counter()
    measure.check(0 < loss < np.log(train_lm.VOCABULARY) * 2, f"a loss of {loss}")
    return {
        "program made to first loss": measure.summary([done - made]),
        "import to first loss": measure.summary([done - started]),
    }


def _run_programs(count: int) -> dict[str, Any]:
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    mesh = Mesh(np.array(jax.devices()), ("hosts",))
    hosts = mesh.devices.size
    x = jax.device_put(np.arange(4 * hosts, dtype=np.float32), NamedSharding(mesh, P("hosts")))
    for index in range(count):
        found = float(jax.jit(lambda v, index=index: (v * index + 1).sum())(x))
        wanted = float(np.arange(4 * hosts, dtype=np.float32).sum() * index + 4 * hosts)
        measure.check(found == wanted, f"program {index}: {found}, not {wanted}")
    return {}
