"""A trace of a worker: begun by a program's first execution, ended and written by its second."""

import datetime
import pathlib
import socket
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxlib import _profiler

from causeway.worker import host_parts


class Profile:
    """One worker's part of a trace; the plan is EncodeProfilePlan's (wire/plugin_program.h)."""

    def __init__(self, plan: dict[str, Any], worker: int, per_host: int):
        self._plan = plan
        self._worker = worker
        self._per_host = per_host
        self._lock = threading.Lock()
        self._session = None
        self._started = ""
        self._data: bytes | None = None
        self._timer: threading.Timer | None = None

    def run(self, args: Sequence[Sequence[host_parts.Shard]]) -> list[list[host_parts.Part]]:
        del args
        with self._lock:
            if self._session is None and self._data is None:
                said = self._start()
            else:
                self._end()
                said = self._write()
        if not self._plan["has_output"]:
            return []
        # The client wants one text, on the first worker's first device.
        if self._worker != 0:
            return [[]]
        return [[host_parts.part(0, np.array([said], np.dtypes.StringDType()))]]

    def close(self) -> None:
        with self._lock:
            self._end()

    def _start(self) -> str:
        options = _profiler.ProfileOptions()
        if self._plan["host_trace_level"] >= 0:
            options.host_tracer_level = int(self._plan["host_trace_level"])
        options.python_tracer_level = int(self._plan["python_tracer"])
        self._session = _profiler.ProfilerSession(options)
        now = datetime.datetime.now(datetime.UTC)
        self._started = self._plan["session"] or now.strftime("%Y_%m_%d_%H_%M_%S")
        if self._plan["max_seconds"] > 0:
            self._timer = threading.Timer(self._plan["max_seconds"], self.close)
            self._timer.daemon = True
            self._timer.start()
        return self._started

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._session is not None:
            self._data = self._session.stop()
            self._session = None

    def _write(self) -> str:
        folder = f"{self._plan['directory']}/plugins/profile/{self._started}"
        path = f"{folder}/{socket.gethostname()}-worker{self._worker}.xplane.pb"
        data, self._data = self._data, None
        if "://" in path:
            from etils import epath  # pylint: disable=import-outside-toplevel

            epath.Path(folder).mkdir(parents=True, exist_ok=True)
            epath.Path(path).write_bytes(data)
            return path
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).write_bytes(data)
        return path
