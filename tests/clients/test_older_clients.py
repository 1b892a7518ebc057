"""One cluster, clients of several JAX versions at once; and this client with an older protocol.

Older versions of JAX are downloaded, so they are part of the long form: CAUSEWAY_LONG_TESTS=1.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

OLDER = Path(__file__).resolve().parent / "older"
PYTHON = OLDER.parent.parent.parent / "python"
LONG = bool(os.environ.get("CAUSEWAY_LONG_TESTS"))
VERSIONS = ("0.9.2", "0.8.3")
Start = Callable[[int], dict[str, str]]


@pytest.fixture
def cluster(state_dir: Path, tmp_path: Path) -> Iterator[Start]:
    """cluster(protocol) starts one that speaks at most that protocol; returns the variables."""
    from causeway.cluster import paths
    from causeway.cluster.errors import ClusterError

    try:
        head = paths.head_binary()
    except ClusterError as error:
        pytest.skip(str(error))
    name = f"older-{os.getpid()}"

    def causeway(*words: str, **env: str) -> str:
        command = [sys.executable, "-m", "causeway.cli", *words, "--name", name, "-o", "json"]
        done = subprocess.run(
            command, env={**_environment(), **env}, capture_output=True, text=True, timeout=150
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(protocol: int) -> dict[str, str]:
        masked = tmp_path / "causewayd"
        masked.write_text(f'#!/bin/sh\nexec {head} --ifrt-protocol-max={protocol} "$@"\n')
        masked.chmod(masked.stat().st_mode | stat.S_IXUSR)
        words = ["--slices", "2", "--devices-per-host", "2", "--announce-slices", "false"]
        for port in ("proxy", "server", "ops", "worker"):
            words += [f"--{port}-port", "0"]
        return json.loads(causeway("up", *words, CAUSEWAY_HEAD_BINARY=str(masked)))["environment"]

    yield start
    causeway("down")


@pytest.mark.slow
@pytest.mark.timeout_seconds(300)
@pytest.mark.parametrize("protocol", [16, 20])
def test_this_client_with_an_older_protocol(protocol: int, cluster: Start) -> None:
    command = [sys.executable, str(OLDER / "program.py"), "package"]
    assert _result(_begin(command, cluster(protocol), package=True)).startswith("12 checks")


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="downloads older versions of JAX: CAUSEWAY_LONG_TESTS=1")
@pytest.mark.timeout_seconds(900)
def test_older_clients_at_once(cluster: Start, tmp_path: Path) -> None:
    pythons = {version: _install(version, tmp_path) for version in VERSIONS}
    program = str(OLDER / "program.py")
    env = cluster(25)
    running = {"here": _begin([sys.executable, program, "package"], env, package=True)}
    for version, python in pythons.items():
        running[version] = _begin([python, program, "package"], env, package=True)
    results = {version: _result(client) for version, client in running.items()}
    assert [text.split()[0] for text in results.values()] == ["12"] * 3, results
    # Without the package there are no callbacks, and arrays are read later; the rest is the same.
    for version, python in pythons.items():
        bare = [python, str(OLDER / "bare.py"), program]
        assert _result(_begin(bare, env, package=False)) == f"10 checks with jax {version}"


def _environment() -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "IFRT_PROXY_"))}
    return {**env, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(PYTHON)}


def _install(version: str, folder: Path) -> str:
    venv = folder / version
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=300)
    python = str(venv / "bin" / "python")
    packages = [f"jax=={version}", f"jaxlib=={version}"]
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True, timeout=600)
    return python


def _begin(command: list[str], env: dict[str, str], *, package: bool) -> subprocess.Popen[str]:
    whole = {**_environment(), **env}
    if not package:
        del whole["PYTHONPATH"]
    return subprocess.Popen(
        command, env=whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _result(client: subprocess.Popen[str]) -> str:
    try:
        out, err = client.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        client.kill()
        raise
    assert client.returncode == 0, out[-2000:] + err[-6000:]
    return out.strip().splitlines()[-1]
