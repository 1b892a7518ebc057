"""The data plane between workers, without a cluster around it, beside memcpy and plain TCP."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from harness import comparison, stats, systems
from harness.report import Report

TITLE = "data plane alone: blocks from one process to another"
_PIECES, _BLOCK = "256 pieces of 1 KiB", "256 KiB"
_Rounds = dict[str, list[dict[str, float]]]  # by system


def run(options: comparison.Options) -> Report:
    binary = systems.ROOT / "build" / "release" / "bench" / "bench_data_plane"
    if not binary.exists():
        raise FileNotFoundError(f"{binary} is not built: run ./causeway build")
    rounds = min(options.rounds, 10)
    done = subprocess.run(
        [str(binary), *(["--quick"] if options.quick else ["--rounds", str(rounds)])],
        capture_output=True, text=True, timeout=60 + 60 * rounds,
    )
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        raise RuntimeError(f"{binary} ended with status {done.returncode}")
    cases: dict[str, _Rounds] = {}
    for line in done.stdout.splitlines():
        row = json.loads(line)
        cases.setdefault(row["case"], {}).setdefault(row["system"], []).append(row)
    if not cases:
        raise RuntimeError(f"{binary} measured nothing")
    report = Report("data_plane", TITLE, unit="us")
    for case, measured in cases.items():
        _row(report, case, measured)
    for system in ("shared memory", "TCP"):
        if system in cases[_PIECES]:
            _ratio(
                report, _PIECES, f"{system} / one block", cases[_BLOCK], cases[_PIECES], system,
                system,
            )
    report.note(
        "p50 (worst) and the processor time of both processes. shared memory / memcpy and TCP / "
        "raw TCP are speeds, from the pairs of every round, with a 95 % interval; the aims are "
        "60 % and 85 % from 32 MiB on. Pieces / one block: the speed of 256 pieces of 1 KiB over "
        "that of their bytes in one block; the aim is 50 %. raw TCP is send() and recv() of the "
        "same bytes between the same processes, over as many streams as the data plane has."
    )
    report.note(
        "New memory: the receiver keeps what has come, so that every transfer needs pages that "
        "were never touched, and so do memcpy and raw TCP. Otherwise all of them use theirs again."
    )
    return report


def _row(report: Report, case: str, measured: _Rounds) -> None:
    columns: dict[str, str] = {}
    for system, rows in measured.items():
        p50, worst, cpu = (
            statistics.median(row[key] for row in rows) for key in ("p50", "max", "cpu_us")
        )
        columns[system] = f"{p50:,.0f} ({worst:,.0f}) cpu {cpu:,.0f}"
    report.rows[case] = columns
    report.data[case] = dict(measured)
    for ours, limit in (("shared memory", "memcpy"), ("TCP", "raw TCP")):
        if ours in measured and case != _PIECES:
            _ratio(report, case, f"{ours} / {limit}", measured, measured, limit, ours)


def _ratio(
    report: Report, case: str, column: str, theirs: _Rounds, ours: _Rounds, their_system: str,
    our_system: str,
) -> None:
    """How fast ours is when theirs is 100 %."""
    ratio, low, high = stats.paired_ratio(
        [row["p50"] for row in theirs[their_system]], [row["p50"] for row in ours[our_system]]
    )
    report.rows[case][column] = f"{ratio:.0%} [{low:.0%}-{high:.0%}]"
    report.data[case][column] = {"median": ratio, "low": low, "high": high}
