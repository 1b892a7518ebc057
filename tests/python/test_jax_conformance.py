"""The tool that runs JAX's tests on both sides, on a checkout of a few tests without JAX."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from conformance import report, results, sides  # noqa: E402

TESTS = """
import os, pathlib
HERE = pathlib.Path(__file__).parent
def note(name):
    with (HERE / "ran").open("a") as ran:
        ran.write(name + "\\n")
def test_good(): note("good")
def test_dies(): note("dies"); os._exit(9)
def test_wrong(): note("wrong"); assert 1 == 2
""" + "".join(f"def test_many_{n}(): note('many')\n" for n in range(40))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "a_test.py").write_text(TESTS)
    return tmp_path


def run(checkout: Path, *options: str) -> None:
    command = [sys.executable, str(ROOT / "tools" / "jax_conformance.py")]
    command += ["--jax-checkout", str(checkout), "--out", str(checkout / "out"), "--local-only"]
    subprocess.run(
        [*command, "--files", "a_test", *options],
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )


def ran(checkout: Path) -> list[str]:
    file = checkout / "tests" / "ran"
    names = file.read_text().split() if file.exists() else []
    file.unlink(missing_ok=True)
    return names


def found(checkout: Path) -> results.FileResults:
    return results.read(checkout / "out" / "local" / "a_test.jsonl")


def test_a_death_costs_one_test_and_a_second_call_runs_nothing(checkout: Path) -> None:
    run(checkout)
    assert sorted(set(ran(checkout))) == ["dies", "good", "many", "wrong"]
    after = found(checkout)
    assert after.complete and len(after.tests) == after.in_file == 43
    assert after.tests["test_dies"].outcome == "ended"
    assert after.tests["test_wrong"].outcome == "failed"
    run(checkout)
    assert ran(checkout) == []
    run(checkout, "--again")
    assert sorted(ran(checkout)) == ["dies", "wrong"]


def test_a_sample_is_completed_by_a_whole_run(checkout: Path) -> None:
    run(checkout, "--sample", "5")
    sample = ran(checkout)
    assert 0 < len(sample) < 25 and found(checkout).in_file == 43
    run(checkout, "--sample", "5")
    assert ran(checkout) == []
    run(checkout)
    assert len(sample) + len(ran(checkout)) == len(found(checkout).tests) == 43


def test_only_doubtful_tests_run_locally(checkout: Path) -> None:
    remote = checkout / "out" / "causeway" / "a_test.jsonl"
    remote.parent.mkdir(parents=True)
    entries: list[dict[str, object]] = [{"collected": 3, "in_file": 43}]
    for name, outcome in (("good", "failed"), ("wrong", "failed"), ("many_7", "passed")):
        entries += [{"start": f"test_{name}"}, {"end": f"test_{name}", "outcome": outcome}]
    remote.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    run(checkout, "--doubtful")
    assert sorted(ran(checkout)) == ["good", "wrong"]
    rows, differences = report.compare({"a_test": (found(checkout), results.read(remote))})
    assert [(row.both, row.local, row.causeway) for row in rows] == [(3, 2, 1)]
    assert [difference["test"] for difference in differences] == ["test_good"]


def test_a_cluster_that_does_not_start_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from causeway.cluster import environment, launcher
    from causeway.cluster.errors import ClusterError

    calls: list[str] = []
    outcomes = iter(["busy", "good", "busy", "busy", "busy"])

    def start(shape: Any, **_: Any) -> tuple[str, bool]:
        outcome = next(outcomes)
        calls.append(outcome)
        if outcome == "busy":
            raise ClusterError("worker 0 did not join within 300 s")
        return "a state", True

    monkeypatch.setattr(launcher, "start", start)
    monkeypatch.setattr(launcher, "stop", lambda name: calls.append("stop"))
    monkeypatch.setattr(environment, "for_command", lambda state, *_: {"state": state})
    monkeypatch.setenv("CAUSEWAY_STATE_DIR", str(tmp_path))
    side = sides.OwnClusterSide(0, 8, 2, tmp_path)
    assert side.environment() == side.environment() == {"state": "a state"}
    assert calls == ["busy", "stop", "good"]
    side.close()
    calls.clear()
    with pytest.raises(ClusterError):
        side.environment()
    assert calls == ["busy", "stop"] * 3
