"""A pytest plugin that writes each test's fate at once, so that a hang or a crash loses one test.

The log has one JSON object a line: {"start": id}, then {"end": id, "outcome": ..., "seconds": ...,
"reason": first line, "message": ..., "text": traceback}. Tests that the log already knows are left
out, which makes a second process go on where the first one ended. It is loaded by name inside JAX's
test processes, with nothing of this project on the path but its own folder.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from sampling import chosen

LOG = Path(os.environ["CONFORMANCE_LOG"])
TEST_SECONDS = int(os.environ["CONFORMANCE_TEST_SECONDS"])
SAMPLE = int(os.environ.get("CONFORMANCE_SAMPLE", "1"))
# A file that names the only tests to run, one a line.
ONLY = os.environ.get("CONFORMANCE_ONLY", "")
# What this call was asked for, in a word; noted when all of it has been run.
SCOPE = os.environ["CONFORMANCE_SCOPE"]
# After one of these the process or the cluster is of no use to the tests that follow.
_BROKEN = ("Connection to IFRT proxy server was terminated", "DATA_LOSS", "took longer than")
_TEXT_MAX = 6000


class _Recorder:
    def __init__(self) -> None:
        self._out = LOG.open("a", buffering=1)
        self._stacks = LOG.with_suffix(".stacks").open("a")
        self._outcome = "passed"
        self._reason = ""
        self._message = ""
        self._text = ""
        self._begun = 0.0

    def _details(self) -> dict[str, str]:
        return {"reason": self._reason, "message": self._message, "text": self._text}

    def write(self, **entry: object) -> None:
        self._out.write(json.dumps(entry) + "\n")
        self._out.flush()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        done = set()
        for line in LOG.read_text().splitlines():
            done.add(json.loads(line).get("start"))
        wanted = [item for item in items if chosen(_name(item), SAMPLE)]
        if ONLY:
            names = set(Path(ONLY).read_text().splitlines())
            wanted = [item for item in wanted if _name(item) in names]
        left = [item for item in wanted if _name(item) not in done]
        kept = set(left)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        self.write(collected=len(wanted), in_file=len(items))
        items[:] = left

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus in (0, 1, 5) and not session.shouldstop:
            self.write(finished=SCOPE)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            text = str(report.longrepr)
            self.write(collect_error=report.nodeid, text=text[-_TEXT_MAX:])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item):
        name = _name(item)

        def expired(*_: object) -> None:
            raise TimeoutError(f"{name} took longer than {TEST_SECONDS} s")

        self._outcome, self._reason, self._message, self._text = "passed", "", "", ""
        self._begun = time.monotonic()
        self.write(start=name)
        self._stacks.write(f"{name}\n")
        self._stacks.flush()
        signal.signal(signal.SIGALRM, expired)
        signal.alarm(TEST_SECONDS)
        # A test that sits in C++ never sees the alarm: then the process goes.
        faulthandler.dump_traceback_later(TEST_SECONDS + 5, exit=True, file=self._stacks)
        try:
            return (yield)
        finally:
            signal.alarm(0)
            faulthandler.cancel_dump_traceback_later()
            self.write(
                end=name,
                outcome=self._outcome,
                seconds=round(time.monotonic() - self._begun, 3),
                **{k: v for k, v in self._details().items() if v},
            )
            if self._outcome == "failed" and any(sign in self._message for sign in _BROKEN):
                item.session.shouldstop = "the connection is of no more use"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._outcome = "failed"
            crash = getattr(report.longrepr, "reprcrash", None)
            message = crash.message if crash else str(report.longrepr)
            # The innermost message says what happened; the whole goes into the text.
            lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
            self._reason = (lines[0] if lines else "no message")[:400]
            self._message = message[:1500]
            self._text = str(report.longrepr)[-_TEXT_MAX:]
        elif report.skipped and self._outcome == "passed":
            self._outcome = "skipped"
            if hasattr(report, "wasxfail"):
                self._outcome = "passed"
            elif isinstance(report.longrepr, tuple):
                self._reason = str(report.longrepr[2])[:400]


def _name(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[2]


def _end_with(parent: int) -> None:
    """Two processes must never write one log: without the tool that started it, this one goes."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(3)


def pytest_configure(config: pytest.Config) -> None:
    LOG.touch()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    config.pluginmanager.register(_Recorder())
