"""Daemon threads that grow with demand and work until the process is really gone.

Not concurrent.futures: its executors refuse work as soon as the interpreter begins to exit, which
is when JAX waits for the last debug prints.
"""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable, Hashable

log = logging.getLogger("causeway.client")

_IDLE_SECONDS = 30.0


class Threads:
    """Runs each job at once, on an idle thread or a new one: jobs may wait for each other."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._jobs: collections.deque[Callable[[], None]] = collections.deque()
        self._idle = 0
        # From Python 3.12 on, an exiting interpreter starts no threads: this one stays.
        self._start(forever=True)

    def submit(self, job: Callable[[], None]) -> None:
        with self._condition:
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._condition.notify()
                return
        try:
            self._start(forever=False)
        except RuntimeError:
            pass  # exiting, or out of threads: the permanent one comes to it

    def _start(self, forever: bool) -> None:
        threading.Thread(
            target=self._work, args=(forever,), daemon=True, name="causeway-callback"
        ).start()

    def _work(self, forever: bool) -> None:
        while True:
            with self._condition:
                self._idle += 1
                found = self._condition.wait_for(
                    lambda: self._jobs, None if forever else _IDLE_SECONDS
                )
                self._idle -= 1
                if not found:
                    return
                job = self._jobs.popleft()
            try:
                job()
            except Exception:
                log.exception("a host callback's thread")
            del job  # and with it the operands, while nothing is to do


class Strands:
    """Jobs with the same key run one after the other, in order; others side by side."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, collections.deque[Callable[[], None]]] = {}

    def submit(self, key: Hashable, job: Callable[[], None]) -> None:
        with self._lock:
            jobs = self._waiting.get(key)
            if jobs is not None:
                jobs.append(job)
                return
            self._waiting[key] = collections.deque([job])
        self._threads.submit(lambda: self._drain(key))

    def discard(self, wanted: Callable[[Hashable], bool]) -> None:
        """Drops the jobs that have not begun, of the keys for which `wanted` is true."""
        with self._lock:
            for key, jobs in self._waiting.items():
                if wanted(key):
                    jobs.clear()

    def _drain(self, key: Hashable) -> None:
        while True:
            with self._lock:
                jobs = self._waiting[key]
                if not jobs:
                    del self._waiting[key]
                    return
                job = jobs.popleft()
            try:
                job()
            except Exception:
                log.exception("a host callback")
            del job
