"""The controller's own cost of a program, by the number of (emulated) hosts that run it."""

from __future__ import annotations

import json
import statistics
import subprocess

from harness import comparison, systems
from harness.report import Report

TITLE = "controller alone: processor time of one program on emulated hosts"


def run(options: comparison.Options) -> Report:
    binary = systems.ROOT / "build" / "release" / "bench" / "bench_controller"
    if not binary.exists():
        raise FileNotFoundError(f"{binary} is not built: run ./causeway build")
    repeats = 1 if options.quick else min(options.pairs, 5)
    runs: dict[tuple[int, int, int], list[dict[str, float]]] = {}
    for _ in range(repeats):
        done = subprocess.run(
            [str(binary), *(["--quick"] if options.quick else [])],
            check=True, capture_output=True, text=True, timeout=300,
        )
        for line in done.stdout.splitlines():
            row = json.loads(line)
            runs.setdefault((row["hosts"], row["args"], row["confirm_every"]), []).append(row)
    report = Report("controller", TITLE, unit="us")
    for (hosts, args, every), rows in runs.items():
        report.add(
            f"{hosts} hosts, {args} argument{'s' if args > 1 else ''}, "
            f"confirmed every {every}",
            **{
                column: float(statistics.median(row[key] for row in rows))
                for column, key in (
                    ("execute", "execute_us"), ("drop_results", "destruct_us"),
                    ("confirmations", "confirm_us"), ("a_host_and_program", "us_per_host"),
                    ("bytes_to_a_host", "bytes_per_host"), ("all_join", "attach_us"),
                    ("one_is_lost", "lose_us"),
                )
            },
        )
    report.note(
        "execute, drop results, confirmations: the whole cluster, one program. all join: the "
        "first host to the last. one is lost: failing what it had, a new epoch for the others."
    )
    report.note(
        "The real controller with links that only count: no network, no devices. It says what "
        "the controller's logic costs, not how fast a cluster of that size would be."
    )
    return report
