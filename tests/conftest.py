"""Fixtures for all Python tests: a bound on each test, and one real cluster for those that ask."""

from __future__ import annotations

import dataclasses
import faulthandler
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_TIMEOUT_SECONDS = 120


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Ends a test that hangs: an alarm first, a dump of all threads and the end soon after."""
    marker = item.get_closest_marker("timeout_seconds")
    seconds = int(marker.args[0]) if marker else DEFAULT_TIMEOUT_SECONDS

    def expired(*_: object) -> None:
        raise TimeoutError(f"{item.nodeid} took longer than {seconds} s")

    old = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(seconds + 30, exit=True)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, old)


@dataclasses.dataclass
class RealCluster:
    """A running cluster of this checkout's own head and workers."""

    name: str
    target: str
    ops_url: str
    slices: int
    devices: int
    env: dict[str, str]  # of a client program

    def run(
        self, code: str, *, timeout: float = 120.0, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs Python code as a client in a process of its own."""
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def ask(self, command: str, slice_index: int) -> dict[str, object]:
        """`kill` or `restore` one slice; returns once the processes are gone or started."""
        from causeway.cluster import paths
        from causeway.supervisor import control_socket

        message = {"command": command, "slice": slice_index}
        return control_socket.call(paths.cluster_dir(self.name), message)


def start_real_cluster(name: str, **shape: object) -> RealCluster:
    """Starts a cluster on free ports; skips the test where the head is not built."""
    from causeway.cluster import environment, launcher, paths
    from causeway.cluster.errors import ClusterError
    from causeway.cluster.options import ClusterOptions

    try:
        paths.head_binary()
    except ClusterError as error:
        pytest.skip(str(error))
    shape.setdefault("transfer_checksums", True)
    options = ClusterOptions(name=name, **shape).on_free_ports()  # type: ignore[arg-type]
    state, _ = launcher.start(options, timeout_seconds=90.0, owner_pid=os.getpid())
    env = environment.for_command(state, os.environ, ROOT / "python")
    return RealCluster(
        name, state.target, state.ops_url, options.slices, options.devices, env
    )


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Clusters of the tests never meet those of the person who runs them."""
    folder = tmp_path_factory.mktemp("state")
    old = os.environ.get("CAUSEWAY_STATE_DIR")
    os.environ["CAUSEWAY_STATE_DIR"] = str(folder)
    yield folder
    if old is None:
        del os.environ["CAUSEWAY_STATE_DIR"]
    else:
        os.environ["CAUSEWAY_STATE_DIR"] = old


@pytest.fixture(scope="session")
def cluster(state_dir: Path) -> Iterator[RealCluster]:
    """Two slices of one host with two devices each; shared by all tests that leave it whole."""
    yield from _cluster("shared")


@pytest.fixture(scope="module")
def three_slices(state_dir: Path) -> Iterator[RealCluster]:
    """Three slices of one host with two devices each; tests leave it whole."""
    from causeway.cluster import launcher

    try:
        yield start_real_cluster(
            "three", slices=3, hosts_per_slice=1, devices_per_host=2, announce_slices="true"
        )
    finally:
        launcher.stop("three")


@pytest.fixture
def own_cluster(state_dir: Path) -> Iterator[RealCluster]:
    """The same, for one test that may break it."""
    yield from _cluster("own")


def _cluster(name: str) -> Iterator[RealCluster]:
    from causeway.cluster import launcher

    try:
        yield start_real_cluster(
            name, slices=2, hosts_per_slice=1, devices_per_host=2, announce_slices="true"
        )
    finally:
        launcher.stop(name)
