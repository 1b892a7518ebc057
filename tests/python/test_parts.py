"""Small parts that need no process: options, reasons, counting of test results, state files."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from causeway.checks import suites
from causeway.cluster import paths, processes, state
from causeway.cluster.errors import ClusterError, ExitCode
from causeway.cluster.options import ClusterOptions
from causeway.supervisor import child, reasons


def test_options_know_their_workers() -> None:
    options = ClusterOptions(slices=3, hosts_per_slice=2, devices_per_host=4)
    assert (options.workers, options.devices) == (6, 24)
    assert list(options.workers_of_slice(1)) == [2, 3]
    assert options.slice_of_worker(5) == 2
    with pytest.raises(ClusterError, match="slices 0 to 2"):
        options.workers_of_slice(3)


@pytest.mark.parametrize("field, value", [("slices", 0), ("proxy_port", 70000), ("name", "a/b")])
def test_options_refuse_nonsense(field: str, value: object) -> None:
    with pytest.raises(ClusterError) as refused:
        ClusterOptions(**{field: value})  # type: ignore[arg-type]
    assert refused.value.code is ExitCode.USAGE


def test_a_free_port_asks_for_nothing() -> None:
    running = ClusterOptions(proxy_port=29000)
    assert running.differences(running.on_free_ports()) == []
    assert len(running.differences(ClusterOptions(proxy_port=5))) == 1


@pytest.mark.parametrize(
    "code, text, expected, final",
    [
        (1, "Traceback\nModuleNotFoundError: No module named 'jaxlib.xla'\n", "no jaxlib", 93),
        (1, "ImportError: No module named causeway._native.core", "./causeway build", 93),
        (1, "bind 127.0.0.1:5: Address already in use\nbye\n", "a port is taken", 4),
        (4, "first\nlast words\n\n", "exit status 4: last words", 0),
        (-6, "check failed\n", "killed by SIGABRT: check failed", 0),
        (-9, "all was well\n", "killed by SIGKILL", 0),
        (2, "", "exit status 2", 0),
    ],
)
def test_reasons(tmp_path: Path, code: int, text: str, expected: str, final: int) -> None:
    log = tmp_path / "x.log"
    old = "No module named 'jax'\n"  # of an earlier start: not this one's reason
    log.write_text(old + text)
    reason = reasons.explain(code, log, len(old))
    assert expected in reason.text and reason.final_code == final
    assert "\n" not in reason.text


def test_a_log_is_rotated_under_its_writer(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(child, "LOG_BYTES_MAX", 100)
    log = tmp_path / "w.log"
    one = child.Child("worker-0", ["sh", "-c", "read x; echo after"], dict(os.environ), log)
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 200)
        one.rotate_log()
        writer.write(b"y\n")
    assert log.read_bytes() == b"y\n"
    assert (tmp_path / "w.log.1").stat().st_size == 200


def test_backoff_grows_and_is_bounded(tmp_path: Path) -> None:
    one = child.Child("worker-0", ["false"], {}, tmp_path / "w.log")
    one._started_at = time.monotonic()  # it keeps dying soon after its start
    pauses = []
    for _ in range(12):
        one.plan_restart()
        pauses.append(one._backoff)
    assert pauses[0] < 1 and pauses == sorted(pauses) and pauses[-1] == 15.0
    one.release()
    one.plan_restart()
    assert one._backoff == pauses[0]


def test_a_state_file_survives_a_round_trip_and_damage(tmp_path: Path) -> None:
    written = state.ClusterState(
        options=ClusterOptions(name="x", slices=2),
        pid=os.getpid(),
        started=processes.start_time(os.getpid()),
        processes=[state.ProcessRecord("head", pid=3, reason="because")],
    )
    state.write(tmp_path, written)
    assert state.read(tmp_path) == written and written.is_alive()
    (tmp_path / "state.json").write_text("{")
    assert state.read(tmp_path) is None
    (tmp_path / "state.json").write_text(json.dumps({"pid": 1}))
    assert state.read(tmp_path) is None


def test_a_home_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAUSEWAY_STATE_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert paths.state_root().name == f"causeway-{os.getuid()}"


def test_an_installed_package_offers_only_itself(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(paths, "checkout_root", lambda: None)
    folder = paths.client_path(tmp_path)
    assert sorted(entry.name for entry in folder.iterdir()) == ["causeway", "jax_plugins"]
    assert (folder / "causeway" / "connect.py").is_file()
    assert (folder / "jax_plugins" / "causeway" / "__init__.py").is_file()
    assert not (folder / "jax_plugins" / "__init__.py").exists()
    assert paths.client_path(tmp_path) == folder


JUNIT = """<testsuites><testsuite>
<testcase name="a" status="run"/><testcase name="b"><failure/></testcase>
<testcase name="c"><skipped/></testcase><testcase name="d"><error/></testcase>
<testcase name="e" status="notrun"/></testsuite></testsuites>"""


def test_results_are_counted(tmp_path: Path) -> None:
    report = tmp_path / "r.xml"
    report.write_text(JUNIT)
    counts = suites._from_junit(report, 1)
    assert counts == suites.Counts(passed=1, failed=2, skipped=2)
    assert counts.line() == "1 passed, 2 failed, 2 skipped"
    report.write_text('<testsuite><testcase name="a"/></testsuite>')
    assert suites._from_junit(report, 0).line() == "1 passed, 0 failed"
    # A crash between tests names no failing test, yet it is one.
    assert suites._from_junit(report, 134).failed == 1
    assert suites._from_junit(tmp_path / "missing.xml", 1).failed == 1


def test_a_suite_that_hangs_is_ended(tmp_path: Path) -> None:
    assert suites._run(["sh", "-c", "sleep 100 & sleep 100"], tmp_path, 0.2) == 124
    assert suites._run(["true"], tmp_path, 0.0) == 124
