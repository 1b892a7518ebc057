"""Runs the topic files once on each side and keeps what they gave."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
PYTHON = HERE.parent.parent / "python"
SIDE_SECONDS = {"local": 150.0, "cluster": 240.0}
TOPIC_SECONDS = 120.0


@dataclasses.dataclass
class Test:
    """One test of one side, or all parameters of it together."""

    outcomes: dict[str, str]
    texts: dict[str, str]
    values: dict[str, dict[str, Any]]


@dataclasses.dataclass
class Side:
    tests: dict[tuple[str, str], Test]  # (file, function)
    outputs: dict[str, str]  # of each file


@pytest.fixture(scope="session")
def local_side(tmp_path_factory: pytest.TempPathFactory) -> Side:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "IFRT_PROXY_"))}
    env["JAX_PLATFORMS"] = "cpu"
    env["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    env["NPROC"] = env["PJRT_NPROC"] = "32"
    return _run("local", env, tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="session")
def cluster_side(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Iterator[Side]:
    """Through one slice of two workers with four devices each."""
    from causeway.cluster import environment, launcher, paths
    from causeway.cluster.errors import ClusterError
    from causeway.cluster.options import ClusterOptions

    try:
        paths.head_binary()
    except ClusterError as error:
        pytest.skip(str(error))
    shape = ClusterOptions(name="conformance", hosts_per_slice=2, devices_per_host=4)
    try:
        state, _ = launcher.start(shape.on_free_ports(), 90.0, owner_pid=os.getpid())
        env = environment.for_command(state, os.environ, PYTHON)
        yield _run("cluster", env, tmp_path_factory.mktemp("cluster"))
    finally:
        launcher.stop("conformance")


def _run(side: str, env: dict[str, str], folder: Path) -> Side:
    """Each topic in a process of its own, so that one that breaks off takes no other with it."""
    out = folder / "results.pickle"
    out.touch()
    env = {**env, "CONFORMANCE_OUT": str(out), "CONFORMANCE_SIDE": side}
    env["TF_CPP_MIN_LOG_LEVEL"] = "3"
    topics = HERE / "topics"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    command += ["-c", os.devnull, f"--rootdir={topics}", f"--confcutdir={topics}", "-W", "ignore"]
    deadline = time.monotonic() + SIDE_SECONDS[side]
    outputs = {}
    for file in sorted(topics.glob("*.py")):
        if file.name == "conftest.py":
            continue
        with (folder / f"{file.stem}.txt").open("w+") as output:
            process = subprocess.Popen(
                [*command, str(file)],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                process.wait(max(1.0, min(TOPIC_SECONDS, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            output.seek(0)
            outputs[file.stem] = output.read()[-4000:]
    return Side(_read(out), outputs)


def _read(out: Path) -> dict[tuple[str, str], Test]:
    tests: dict[tuple[str, str], Test] = {}
    with out.open("rb") as entries:
        while True:
            try:
                entry = pickle.load(entries)
            except EOFError:
                return tests
            name = entry.get("test") or entry["values"]
            key = (entry["file"], name.partition("[")[0])
            test = tests.setdefault(key, Test({}, {}, {}))
            if "values" in entry:
                test.values[name] = entry["data"]
            elif test.outcomes.get(name) != "failed":
                test.outcomes[name] = entry["outcome"]
                test.texts[name] = entry["text"]
