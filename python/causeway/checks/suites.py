"""The suites that `causeway test` runs, their time bounds, and how their results are counted."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path

TOTAL_SECONDS = 40 * 60.0


@dataclasses.dataclass
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: Counts) -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def line(self) -> str:
        text = f"{self.passed} passed, {self.failed} failed"
        return text + (f", {self.skipped} skipped" if self.skipped else "")


@dataclasses.dataclass(frozen=True)
class Selection:
    root: Path
    build: Path
    only: str | None = None  # "cpp" or "python"
    fast: bool = False
    expression: str | None = None  # -k


def run_all(selection: Selection, say: Callable[[str], None]) -> tuple[Counts, dict[str, Counts]]:
    """Runs what is selected within TOTAL_SECONDS; a suite that cannot run counts as a failure."""
    deadline = time.monotonic() + TOTAL_SECONDS
    suites: list[tuple[str, Callable[[Selection, float], Counts]]] = []
    if selection.only != "cpp" and not selection.expression:
        suites.append(("ruff", _ruff))
    if selection.only != "python":
        suites.append(("ctest", _ctest))
    if selection.only != "cpp":
        suites.append(("pytest", _pytest))
    total, parts = Counts(), {}
    for name, suite in suites:
        say(f"running {name}")
        counts = suite(selection, deadline - time.monotonic())
        parts[name] = counts
        total.add(counts)
    return total, parts


def _ruff(selection: Selection, seconds: float) -> Counts:
    found = shutil.which(
        "ruff", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    )
    if not found:
        return Counts(skipped=1)
    folders = [d for d in ("python", "tests", "tools", "bench") if (selection.root / d).is_dir()]
    code = _run([found, "check", "--no-cache", *folders], selection.root, min(seconds, 120.0))
    return Counts(passed=1) if code == 0 else Counts(failed=1)


def _ctest(selection: Selection, seconds: float) -> Counts:
    with tempfile.TemporaryDirectory(prefix="causeway-ctest-") as folder:
        report = Path(folder) / "ctest.xml"
        command = ["ctest", "--test-dir", str(selection.build), "--output-on-failure", "-j2"]
        command += ["--no-tests=error", "--timeout", "300", "--output-junit", str(report)]
        # As with the Python tests below: what fails is looked at twice, and ctest's output says so.
        command += ["--repeat", "until-pass:2"]
        if selection.expression:
            command += ["-R", selection.expression, "--no-tests=ignore"]
        if selection.fast:
            command += ["-LE", "slow"]
        # Tests that start real workers need a Python with jaxlib: this one.
        os.environ.setdefault("CAUSEWAY_PYTHON", sys.executable)
        code = _run(command, selection.root, seconds)
        return _from_junit(report, code)


# More failures than these are no accident.
_AGAIN_MAX = 3


def _pytest(selection: Selection, seconds: float) -> Counts:
    with tempfile.TemporaryDirectory(prefix="causeway-pytest-") as folder:
        report = Path(folder) / "pytest.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", "tests"]
        if selection.fast:
            command += ["-m", "not slow"]
        if selection.expression:
            command += ["-k", selection.expression]
        deadline = time.monotonic() + seconds
        code = _run(command, selection.root, seconds)
        if code == 5 and selection.expression:
            return Counts()  # nothing of that name among the Python tests
        counts = _from_junit(report, code)
        if code != 1 or not 0 < counts.failed <= _AGAIN_MAX:
            return counts
        # Whole clusters on a busy machine: a few failures are looked at twice, and said aloud.
        print(f"causeway: {counts.failed} failed; running those once more", flush=True)
        left = deadline - time.monotonic()
        again = _from_junit(report, _run([*command, "--last-failed"], selection.root, left))
        print(f"causeway: {again.failed} failed twice, {counts.failed - again.failed} only once")
        healed = max(0, counts.failed - again.failed)
        return dataclasses.replace(
            counts, passed=counts.passed + healed, failed=counts.failed - healed
        )


def _from_junit(report: Path, code: int) -> Counts:
    """Counts test cases; a suite that broke without naming a failure counts as one."""
    counts = Counts()
    try:
        root = xml.etree.ElementTree.parse(report).getroot()
    except (OSError, xml.etree.ElementTree.ParseError):
        return Counts(failed=1) if code else counts
    for case in root.iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            counts.failed += 1
        elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            counts.skipped += 1
        else:
            counts.passed += 1
    if code and not counts.failed:
        counts.failed = 1
    return counts


def _run(command: Sequence[str], cwd: Path, seconds: float) -> int:
    """Runs in a group of its own and ends the whole group when `seconds` have passed."""
    if seconds <= 0:
        print(f"no time left for: {' '.join(command)}", flush=True)
        return 124
    process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, process_group=0)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        print(f"ended after {seconds:.0f} s: {' '.join(command)}", flush=True)
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return 124
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
        raise


def as_json(total: Counts, parts: dict[str, Counts]) -> str:
    return json.dumps(
        {
            "ok": total.failed == 0,
            **dataclasses.asdict(total),
            "suites": {name: dataclasses.asdict(counts) for name, counts in parts.items()},
        }
    )
