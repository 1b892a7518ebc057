"""Stock JAX and a real head with many emulated hosts: what a host more costs the head."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import clients, comparison, measure, processes, systems
from harness.report import Report

TITLE = "real head, emulated hosts: one program on all of them, launched by stock JAX"
_HOSTS = (16, 64, 256, 512)
_QUICK_HOSTS = (4,)
_START_SECONDS = 60.0


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
    from causeway.cluster import paths

    binary = systems.ROOT / "build" / "release" / "bench" / "bench_emulated_hosts"
    if not binary.exists():
        raise FileNotFoundError(f"{binary} is not built: run ./causeway build")
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        log = Path(folder) / "log"
        started: list[subprocess.Popen] = []
        with log.open("wb") as output:
            try:
                head = subprocess.Popen(
                    [
                        str(paths.head_binary()), "--proxy-port=0", "--server-port=0",
                        "--ops-port=0", "--host=127.0.0.1", "--slices=1",
                        f"--hosts-per-slice={hosts}", "--devices-per-host=1", "--platform=cpu",
                        f"--ready-file={ready}",
                    ],
                    stdout=output, stderr=output,
                )
                started.append(head)
                ports = _wait_ready(ready, head)
                emulated = subprocess.Popen(
                    [str(binary), f"127.0.0.1:{ports['server_port']}", str(hosts)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True,
                )
                started.append(emulated)
                _wait_joined(f"http://127.0.0.1:{ports['ops_port']}", hosts)
                system = systems.proxied(
                    "Causeway", f"grpc://127.0.0.1:{ports['proxy_port']}", (head.pid,)
                )
                result = clients.run(
                    "emulated_hosts", system,
                    {"quick": options.quick, "seconds": options.seconds * 2, "hosts": hosts},
                )
                said, _ = emulated.communicate(timeout=30.0)
                launches = json.loads(said)["launches"]
                expected = result.pop("launches")
                if launches != expected:
                    raise AssertionError(f"{launches} launches for {expected} calls")
                return result
            finally:
                for child in reversed(started):
                    processes.end(child)


def _wait_ready(ready: Path, head: subprocess.Popen) -> dict[str, int]:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and head.poll() is None:
        try:
            return json.loads(ready.read_text())
        except (OSError, ValueError):
            time.sleep(0.02)
    raise TimeoutError(f"the head was not ready (exit status {head.poll()})")


def _wait_joined(ops_url: str, hosts: int) -> None:
    from causeway.cluster import head_api

    end = time.monotonic() + _START_SECONDS
    alive: set[int] = set()
    while time.monotonic() < end:
        alive = head_api.alive_workers(head_api.status(ops_url, _START_SECONDS))
        if len(alive) == hosts:
            return
        time.sleep(0.1)
    raise TimeoutError(f"{len(alive)} of {hosts} emulated hosts joined")


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
