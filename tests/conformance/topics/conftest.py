"""Fixtures of the topic files: which side this process is, and the values it hands back.

A topic file runs twice, in two processes: on virtual CPU devices and through a cluster. What it
gives to `record` is compared between the two by test_both_sides.py.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

OUT = Path(os.environ["CONFORMANCE_OUT"])
TEST_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class JaxEnv:
    """`side` is "local" or "cluster"; there are 8 devices on either."""

    side: str
    devices: list[Any]

    def mesh(self, shape: tuple[int, ...], names: tuple[str, ...]) -> Mesh:
        return Mesh(np.array(self.devices).reshape(shape), names)


@pytest.fixture(scope="session")
def jax_env() -> JaxEnv:
    side = os.environ["CONFORMANCE_SIDE"]
    devices = jax.devices()
    assert len(devices) == 8
    remote = devices[0].client.runtime_type == "proxy/pathways"
    assert remote == (side == "cluster"), "the environment chose the other side"
    return JaxEnv(side, devices)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """record(name, value, exact=True): the other side must give the same, bit by bit or nearly."""
    values: dict[str, Any] = {}

    def keep(name: str, value: Any, *, exact: bool = True) -> None:
        if isinstance(value, (str, bool, int, tuple, list, dict, type(None))):
            values[name] = ("plain", value)
            return
        array = np.asarray(value)
        if exact:
            values[name] = ("bits", array.dtype.name, array.shape, array.tobytes())
        else:
            wide = np.complex128 if array.dtype.kind == "c" else np.float64
            values[name] = ("near", array.dtype.name, array.astype(wide))

    yield keep
    _write({"values": request.node.name, "file": request.path.stem, "data": values})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    def expired(*_: object) -> None:
        raise TimeoutError(f"{item.name} took longer than {TEST_SECONDS} s")

    signal.signal(signal.SIGALRM, expired)
    signal.alarm(TEST_SECONDS)
    faulthandler.dump_traceback_later(TEST_SECONDS + 5, exit=True)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        name = report.nodeid.rpartition("::")[2]
        entry = {"outcome": report.outcome, "test": name, "file": Path(report.fspath).stem}
        _write({**entry, "text": str(report.longrepr or "")})


def _write(entry: dict[str, Any]) -> None:
    with OUT.open("ab") as out:
        pickle.dump(entry, out)
