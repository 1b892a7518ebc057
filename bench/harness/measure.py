"""Used inside client processes: timing loops with the processor time of client and servers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from harness import processes, stats


class Meter:
    """Processor time of this process and of the servers behind it, since it was made."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._servers = config["server_pids"]
        self._client = time.process_time()
        self._server = processes.cpu_seconds(self._servers)

    def per(self, count: int) -> dict[str, float]:
        client = (time.process_time() - self._client) / count * 1e6
        server = (processes.cpu_seconds(self._servers) - self._server) / count * 1e6
        return {"client_cpu_us": client, "cpu_us": client + server}


def each(
    config: dict[str, Any], call: Callable[[], object], seconds: float, least: int = 20
) -> dict[str, float]:
    """Microseconds of every single call, for about `seconds`."""
    for _ in range(min(5, least)):
        call()
    times: list[float] = []
    meter = Meter(config)
    for _ in rounds(config, seconds, least):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e6)
    return {**stats.summary(times), **meter.per(len(times))}


def batches(
    config: dict[str, Any],
    issue: Callable[[], object],
    wait: Callable[[], object],
    size: int,
    seconds: float,
    least: int = 3,
) -> dict[str, float]:
    """Microseconds an operation when `size` are issued and then waited for together.

    `issue_us` is the part before the wait: what a program sees that does not need the result.
    """
    times: list[float] = []
    issued: list[float] = []
    for _ in range(size):
        issue()
    wait()
    meter = Meter(config)
    for _ in rounds(config, seconds, least):
        begin = time.perf_counter()
        for _ in range(size):
            issue()
        middle = time.perf_counter()
        wait()
        times.append((time.perf_counter() - begin) / size * 1e6)
        issued.append((middle - begin) / size * 1e6)
    found = {**stats.summary(times), **meter.per(len(times) * size)}
    return {**found, "issue_us": stats.summary(issued)["p50"]}


def rounds(config: dict[str, Any], seconds: float, least: int):
    """Counts rounds for about `seconds`; controllers that run together all count the same."""
    if config["clients"] > 1:
        # No clock is shared: the number is fixed, and scaled to what such a step takes.
        yield from range(max(least, config.get("rounds", least)))
        return
    count = 0
    end = time.perf_counter() + seconds
    while count < least or time.perf_counter() < end:
        yield count
        count += 1


def join(config: dict[str, Any]) -> None:
    """Makes this process one of several controllers, when it is."""
    if config["clients"] > 1:
        import jax

        jax.distributed.initialize(
            config["coordinator"], num_processes=config["clients"], process_id=config["rank"]
        )


def computes(config: dict[str, Any]) -> bool:
    """Whether values mean something there: the null server's are all zero."""
    return config["system"] != "null server"


def check(condition: bool, what: str) -> None:
    """A benchmark whose results are wrong measures nothing."""
    if not condition:
        raise AssertionError(f"wrong result: {what} (pid {os.getpid()})")


def kill_under(
    victim: int, step: Callable[[], object], limit_seconds: float
) -> tuple[float, float]:
    """Steps until the process `victim` is missed, which is killed 0.2 s after the first step.

    Returns the times (time.time()) of the kill and of the error that says DATA_LOSS; without one
    within the limit it raises TimeoutError.
    """
    import jax

    killed: list[float] = []

    def kill() -> None:
        time.sleep(0.2)
        killed.append(time.time())
        os.kill(victim, signal.SIGKILL)

    threading.Thread(target=kill).start()
    end = time.time() + limit_seconds
    try:
        while time.time() < end:
            step()
    except jax.errors.JaxRuntimeError as error:
        seen = time.time()
        check("DATA_LOSS" in str(error), f"the error was {error}")
        return killed[0], seen
    raise TimeoutError(f"no error came within {limit_seconds:.0f} s")


def once(call: Callable[[], object]) -> float:
    """Microseconds of one call."""
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e6


def summary(times: list[float]) -> dict[str, float]:
    return stats.summary(times)
