"""Programs of real clients, unmodified: on local devices, and through `causeway run`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).resolve().parent / "programs"
PYTHON = PROGRAMS.parent.parent.parent / "python"
NEEDS = {"equinox_mlp": "equinox", "chex_asserts": "chex", "orbax_manager": "orbax.checkpoint"}
# One slice of two hosts; two announced slices for the program that builds a hybrid mesh.
SHAPE = {"tools_of_jax": ["--slices", "2", "--hosts-per-slice", "1", "--devices-per-host", "4"]}
DEFAULT_SHAPE = ["--slices", "1", "--hosts-per-slice", "2", "--devices-per-host", "4"]
CASES = sorted(file.stem for file in PROGRAMS.glob("*.py"))


@pytest.mark.slow
@pytest.mark.timeout_seconds(300)
@pytest.mark.parametrize("name", CASES)
def test_same_results(name: str, state_dir: Path, tmp_path: Path) -> None:
    package = NEEDS.get(name, "flax")
    if importlib.util.find_spec(package.partition(".")[0]) is None:
        pytest.skip(f"{package} is not installed")
    _skip_without_head()
    script = str(PROGRAMS / f"{name}.py")
    base = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "IFRT_PROXY_"))}
    base["TF_CPP_MIN_LOG_LEVEL"] = "3"
    local = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "NPROC": "32",
    }
    expected = _result([sys.executable, script], {**base, **local}, tmp_path)
    command = [sys.executable, "-m", "causeway.cli", "run"]
    command += SHAPE.get(name, DEFAULT_SHAPE)
    command += ["--", sys.executable, script]
    python_path = os.pathsep.join(filter(None, [str(PYTHON), base.get("PYTHONPATH", "")]))
    got = _result(command, {**base, "PYTHONPATH": python_path}, tmp_path)
    assert got == pytest.approx(expected, rel=2e-3, abs=2e-4)


def _result(command: list[str], env: dict[str, str], folder: Path) -> list[float]:
    done = subprocess.run(
        command,
        env=env,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=140,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(lines) == 1, done.stdout
    return [float(word) for word in lines[0].split()[1:]]


def _skip_without_head() -> None:
    from causeway.cluster import paths
    from causeway.cluster.errors import ClusterError

    try:
        paths.head_binary()
    except ClusterError as error:
        pytest.skip(str(error))
