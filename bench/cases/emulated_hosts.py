"""Stock JAX and a real head with many emulated hosts: what a host more costs the head."""

from __future__ import annotations

import json
import statistics
from typing import Any

from harness import clients, comparison, emulated, measure
from harness.report import Report

TITLE = "real head, emulated hosts: one program on all of them, launched by stock JAX"
_HOSTS = (16, 64, 256, 512)
_QUICK_HOSTS = (4,)


def run(options: comparison.Options) -> Report:
    report = Report("emulated_hosts", TITLE, unit="us")
    for hosts in _QUICK_HOSTS if options.quick else _HOSTS:
        results = [
            _one(hosts, options) for _ in range(1 if options.quick else min(options.pairs, 5))
        ]
        for case in results[0]:
            runs = [result[case] for result in results]

            def median(key: str, runs: list[dict[str, float]] = runs) -> float:
                return statistics.median(run[key] for run in runs)

            report.add(
                f"{hosts} hosts, {case}", p50=median("p50"), p99=median("p99"),
                head_cpu=median("cpu_us") - median("client_cpu_us"),
                head_cpu_a_host=(median("cpu_us") - median("client_cpu_us")) / hosts,
                client_cpu=median("client_cpu_us"), runs=len(runs),
            )
    report.note(
        "The head, its network and the client are real; the hosts confirm at once and compute "
        "nothing. All of them share the cores of this machine, so head cpu a host is what "
        "carries over to a cluster, and the times are not."
    )
    return report


def _one(hosts: int, options: comparison.Options) -> dict[str, Any]:
    with emulated.cluster(slices=1, hosts_per_slice=hosts) as (system, groups):
        result = clients.run(
            "emulated_hosts", system,
            {"quick": options.quick, "seconds": options.seconds * 2, "hosts": hosts},
        )
        said, _ = groups[0].communicate(timeout=30.0)
        launches = json.loads(said)["launches"]
        expected = result.pop("launches")
        if launches != expected:
            raise AssertionError(f"{launches} launches for {expected} calls")
        return result


def client(config: dict[str, Any]) -> dict[str, Any]:
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    devices = jax.devices()
    measure.check(len(devices) == config["hosts"], f"{len(devices)} devices")
    everywhere = NamedSharding(Mesh(np.array(devices), ("hosts",)), P())
    calls = 0
    found: dict[str, Any] = {}
    for arguments in (1, 100):

        def function(*values):
            return tuple(value + 1 for value in values)

        function.__name__ = f"emulated_outputs_{arguments}"
        step = jax.jit(function)
        state = {"values": jax.device_put([np.float32(0)] * arguments, everywhere)}

        def issue(step=step, state=state) -> None:
            nonlocal calls
            state["values"] = step(*state["values"])
            calls += 1

        def wait(state=state) -> None:
            jax.block_until_ready(state["values"])

        size = 20 if config["quick"] else 100
        label = f"{arguments} argument" + ("s" if arguments > 1 else "")
        found[f"{label}, async"] = measure.batches(config, issue, wait, size, config["seconds"])
        found[f"{label}, block"] = measure.each(
            config, lambda issue=issue, wait=wait: (issue(), wait()), config["seconds"]
        )
    found["launches"] = calls
    return found
