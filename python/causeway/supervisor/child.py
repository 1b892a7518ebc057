"""One child process: its command, its log, and when it may be started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from causeway.cluster import processes
from causeway.cluster.errors import ExitCode
from causeway.cluster.state import ProcessRecord
from causeway.supervisor import reasons

_FIRST_BACKOFF_SECONDS = 0.25
_LAST_BACKOFF_SECONDS = 15.0
_STEADY_SECONDS = 30.0  # who lived this long starts with a short backoff again
LOG_BYTES_MAX = 16 << 20
# The head asks the kernel how a worker ended, which it knows only until the parent has waited for
# the process. So its parent takes this long.
LINGER_SECONDS = 0.1


class Child:
    """Not thread-safe: the supervisor's loop alone calls it."""

    def __init__(self, role: str, command: list[str], env: dict[str, str], log: Path) -> None:
        self.command = command
        self.record = ProcessRecord(role=role, log=str(log))
        self._env = env
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._log_offset = 0
        self._started_at = 0.0
        self._backoff = 0.0
        self._next_start = 0.0
        self._ended_at = 0.0  # monotonic; 0 = it runs, or was waited for

    @property
    def lingers(self) -> bool:
        """It has ended and is not waited for yet."""
        return self._ended_at > 0

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def next_start(self) -> float | None:
        """When to start it again (monotonic seconds), None when nothing is planned."""
        return self._next_start if self.record.phase == "backoff" else None

    def start(self) -> None:
        assert self._process is None
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._log_offset = log.tell()
            try:
                # The child writes to its file itself, so it survives the end of the supervisor.
                self._process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._env,
                )
            except OSError as error:
                self.record.phase = "exited"
                self.record.reason = f"cannot start {self.command[0]}: {error.strerror}"
                self.record.final_code = ExitCode.DO_NOT_RETRY
                return
        self._started_at = time.monotonic()
        self.record.pid = self._process.pid
        self.record.started = processes.start_time(self._process.pid)
        self.record.phase = "running"

    def reap(self, at_once: bool = False) -> bool:
        """Notices an end of the process, a moment late; True when it has done so in this call."""
        if self._process is None:
            return False
        if not self.lingers:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PID, self._process.pid, options) is None:
                return False
            self._ended_at = time.monotonic()
        if time.monotonic() - self._ended_at < LINGER_SECONDS and not at_once:
            return False
        code = self._process.wait()
        self._process, self._ended_at = None, 0.0
        reason = reasons.explain(code, self._log, self._log_offset)
        self.record.reason, self.record.final_code = reason.text, int(reason.final_code)
        self.record.pid, self.record.started = 0, None
        if self.record.phase == "running":
            self.record.phase = "exited"
        return True

    def plan_restart(self) -> None:
        """Another start after a pause that doubles while the child keeps dying early."""
        if time.monotonic() - self._started_at >= _STEADY_SECONDS:
            self._backoff = 0.0
        self._backoff = min(max(self._backoff * 2, _FIRST_BACKOFF_SECONDS), _LAST_BACKOFF_SECONDS)
        self._next_start = time.monotonic() + self._backoff
        self.record.phase = "backoff"
        self.record.restarts += 1

    def keep_down(self) -> None:
        self.record.phase = "kept_down"

    def release(self) -> None:
        """Undoes keep_down: the next start is due at once."""
        self._backoff = 0.0
        self._next_start = time.monotonic()
        self.record.phase = "backoff"

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def wait_ended(self, seconds: float) -> bool:
        """Waits for the end of the process and leaves it for `reap`."""
        if self._process is None:
            return True
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        pid = self._process.pid
        return processes.wait_until(lambda: os.waitid(os.P_PID, pid, options) is not None, seconds)

    def wait(self, seconds: float) -> bool:
        if self._process is None:
            return True
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def rotate_log(self) -> None:
        """Keeps one older file. The child goes on writing to the same, now empty one."""
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > LOG_BYTES_MAX:
                shutil.copyfile(self._log, self._log.with_name(self._log.name + ".1"))
                with self._log.open("r+b") as log:
                    log.truncate(0)
