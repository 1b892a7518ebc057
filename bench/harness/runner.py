"""Finds benchmarks by name, runs them and prints what they found."""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from harness import limits
from harness.comparison import Options

# In the order in which `all` runs them.
NAMES = (
    "dispatch",
    "proxy_tax",
    "host_transfer",
    "worker_transfer",
    "data_plane",
    "compile_cache",
    "train_lm",
    "controller",
    "emulated_hosts",
    "kill_to_step",
    "kill_by_workers",
    "protection",
)


def titles() -> dict[str, str]:
    return {name: importlib.import_module(f"cases.{name}").TITLE for name in NAMES}


def run(names: list[str], options: Options, as_json: bool, save: str = "") -> int:
    """0 when every benchmark ran with right results. Tables as they come, JSON at the end.

    With `save` the JSON goes to that file too, and is there to be read after each benchmark.
    """
    physical = limits.measure(options.quick)
    machine = {"processor": platform.machine(), "python": platform.python_version(), **_versions()}
    # What else runs here: a busy machine makes every figure worse, and ratios less so.
    physical["load_average"] = os.getloadavg()[0]
    if not as_json:
        _print_limits(physical, machine)
    reports: list[dict[str, Any]] = []
    failed = []
    for name in names:
        begin = time.monotonic()
        try:
            report = importlib.import_module(f"cases.{name}").run(options)
            reports.append({**report.to_json(), "seconds": time.monotonic() - begin})
            if not as_json:
                print(f"\n{report.text()}\n", flush=True)
        except Exception as error:
            print(f"{name}: FAILED: {error}", file=sys.stderr, flush=True)
            reports.append({"name": name, "error": str(error)})
            failed.append(name)
        found = json.dumps({
            "ok": not failed, "quick": options.quick, "rounds": options.rounds,
            "limits": physical, "machine": machine, "benchmarks": reports,
        }, indent=1)
        if save:
            Path(save).write_text(found + "\n")
    if as_json:
        print(found)
    return 1 if failed else 0


def _versions() -> dict[str, str]:
    from importlib import metadata

    return {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy")}


def _print_limits(physical: dict[str, float], machine: dict[str, str]) -> None:
    print("machine: " + ", ".join(f"{key} {value}" for key, value in machine.items()))
    print(
        f"limits of this run: {physical['cpus']:.0f} cores, "
        f"memcpy {physical['memcpy_gb_s']:.1f} GB/s, "
        f"TCP loopback {physical['tcp_gb_s']:.2f} GB/s and {physical['tcp_rtt_us']:.0f} us, "
        f"unix socket {physical['unix_gb_s']:.2f} GB/s and {physical['unix_rtt_us']:.0f} us "
        f"a round trip; load average at the start {physical['load_average']:.1f}",
        flush=True,
    )
