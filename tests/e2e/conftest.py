"""Clusters of any shape for the tests of whole systems."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from end_to_end import Cluster

PYTHON = Path(__file__).resolve().parent.parent.parent / "python"
# A long run may share its machine with others.
START_SECONDS = 900.0 if os.environ.get("CAUSEWAY_LONG_TESTS") else 90.0


@pytest.fixture(scope="session")
def start_cluster(
    state_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Cluster]]:
    """start_cluster(slices=.., hosts_per_slice=.., devices_per_host=.., faults={worker: text})."""
    from causeway.cluster import environment, launcher, paths
    from causeway.cluster.errors import ClusterError
    from causeway.cluster.options import ClusterOptions

    try:
        paths.head_binary()
    except ClusterError as error:
        pytest.skip(str(error))
    names: list[str] = []

    def start(
        faults: Mapping[int, str] | None = None, head_flags: Sequence[str] = (), **shape: Any
    ) -> Cluster:
        name = f"e2e-{len(names)}"
        names.append(name)
        folder = tmp_path_factory.mktemp(name)
        shape.setdefault("transfer_checksums", True)
        options = ClusterOptions(name=name, **shape).on_free_ports()
        changed = {}
        if faults:
            changed["CAUSEWAY_WORKER_COMMAND"] = _faulty_worker(folder, faults)
        if head_flags:
            changed["CAUSEWAY_HEAD_BINARY"] = _flagged_head(folder, head_flags)
        with pytest.MonkeyPatch.context() as patch:
            for name_of, value in changed.items():
                patch.setenv(name_of, value)
            state, _ = launcher.start(options, START_SECONDS, owner_pid=os.getpid())
        env = environment.for_command(state, os.environ, PYTHON)
        return Cluster(name, env, state.ops_url, folder)

    yield start
    for name in names:
        launcher.stop(name)


def _faulty_worker(folder: Path, faults: Mapping[int, str]) -> str:
    """A command that starts a worker with CAUSEWAY_FAULTS of its own; -1 are the spares."""
    script = folder / "worker.py"
    script.write_text(
        "import os, sys\n"
        f"faults = {dict(faults)!r}\n"
        "number = int(sys.argv[sys.argv.index('--worker') + 1]) if '--worker' in sys.argv else -1\n"
        "if number in faults:\n"
        "    os.environ['CAUSEWAY_FAULTS'] = faults[number]\n"
        "words = [sys.executable, '-m', 'causeway.worker', *sys.argv[1:]]\n"
        "os.execv(sys.executable, words)\n"
    )
    return f"{sys.executable} {script}"


def _flagged_head(folder: Path, flags: Sequence[str]) -> str:
    """A program that is the head with these flags besides its own."""
    from causeway.cluster import paths

    script = folder / "head"
    words = " ".join(map(shlex.quote, [str(paths.head_binary()), *flags]))
    script.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.fixture(scope="session")
def two_slices(start_cluster: Callable[..., Cluster]) -> Cluster:
    """Two slices of one host with two devices; tests that use it leave it whole."""
    return start_cluster(slices=2, hosts_per_slice=1, devices_per_host=2, announce_slices="true")


@pytest.fixture
def shared(two_slices: Cluster) -> Iterator[Cluster]:
    yield two_slices
    two_slices.close()


@pytest.fixture
def fresh(start_cluster: Callable[..., Cluster]) -> Iterator[Callable[..., Cluster]]:
    """start_cluster, with the cluster ended after the test."""
    from causeway.cluster import launcher

    made: list[Cluster] = []

    def start(**shape: Any) -> Cluster:
        made.append(start_cluster(**shape))
        return made[-1]

    yield start
    for cluster in made:
        cluster.close()
        launcher.stop(cluster.name)
