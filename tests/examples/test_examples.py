"""Every example on plain JAX and on a cluster: the same programs, unchanged, with equal results."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "explore.ipynb"

SMALL_LM = ["--steps=8", "--batch=8", "--seq=32", "--d-model=32", "--layers=2", "--text-mb=0.3"]

# Sums over devices in another order change a loss of float32 by some 1e-7 of itself, and eight
# steps of Adam let that grow by two orders at most. A mistake (a shard in the wrong place, a
# gradient counted twice, a step skipped) changes it by more than 1e-2.
LOSS_RTOL = 1e-4

# What runs a notebook: its code cells, top to bottom, in one namespace.
RUN_NOTEBOOK = """
import json, sys
namespace = {"__name__": "__main__"}
with open(sys.argv[1]) as file:
    cells = json.load(file)["cells"]
for cell in cells:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), namespace)
print("all cells ran on", len(namespace["jax"].devices()), "devices")
"""


def run(env: Mapping[str, str], *arguments: object, prefix: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        [*prefix, sys.executable, *map(str, arguments)],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, f"{arguments[0]} failed:\n{done.stdout}\n{done.stderr[-4000:]}"
    return done.stdout


def clean_environment() -> dict[str, str]:
    """This process's environment without anything that chooses devices."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("JAX_", "IFRT_", "XLA_")) and key != "PYTHONPATH"
    }


@pytest.fixture(scope="session")
def plain() -> dict[str, str]:
    """Plain JAX on 8 virtual devices, with no sight of this project's packages."""
    return clean_environment() | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }


@pytest.fixture(scope="session")
def plain_losses(plain: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    report = tmp_path_factory.mktemp("plain") / "report.json"
    run(plain, EXAMPLES / "train_lm.py", *SMALL_LM, "--json", report)
    return json.loads(report.read_text())["losses"]


def accuracy_in(output: str) -> float:
    found = re.search(r"test accuracy: ([0-9.]+)%", output)
    assert found, output
    return float(found[1])


# ---------------------------------------------------------------- the files themselves


STOCK = sorted(file for file in EXAMPLES.glob("*.py") if file.name != "train_elastic.py")


@pytest.mark.parametrize("file", STOCK, ids=lambda file: file.name)
def test_example_does_not_import_causeway(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not any(name.split(".")[0] == "causeway" for name in names)


def test_notebook_is_clean() -> None:
    notebook: dict[str, Any] = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    identifiers = [cell["id"] for cell in notebook["cells"]]
    assert len(set(identifiers)) == len(identifiers)
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("code", "markdown")
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None, cell["id"]
            assert "causeway" not in "".join(cell["source"])


# ---------------------------------------------------------------- plain JAX


def test_lm_learns_on_plain_jax(plain_losses: list[float]) -> None:
    assert len(plain_losses) == 8
    assert plain_losses[-1] < plain_losses[0] - 0.5


def test_lm_is_the_same_on_one_device(
    plain: dict[str, str], plain_losses: list[float], tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    run(plain | {"XLA_FLAGS": ""}, EXAMPLES / "train_lm.py", *SMALL_LM, "--json", report)
    assert json.loads(report.read_text())["losses"] == pytest.approx(plain_losses, rel=LOSS_RTOL)


def test_digits_on_plain_jax(plain: dict[str, str]) -> None:
    assert accuracy_in(run(plain, EXAMPLES / "digits.py")) > 95


def test_mpmd_on_plain_jax(plain: dict[str, str]) -> None:
    output = run(plain, EXAMPLES / "mpmd.py", "--check", "--steps=10")
    assert "lower half on devices [0, 1, 2, 3], upper on [4, 5, 6, 7]" in output
    assert "check passed: 10 losses" in output


def test_notebook_on_plain_jax(plain: dict[str, str]) -> None:
    assert "all cells ran on 8 devices" in run(plain, "-c", RUN_NOTEBOOK, NOTEBOOK)


# ---------------------------------------------------------------- a cluster


def test_lm_through_causeway_run(
    plain_losses: list[float], state_dir: Path, tmp_path: Path
) -> None:
    """The whole way a user goes: the command line starts a cluster, runs the program, ends it."""
    from causeway.cluster import paths
    from causeway.cluster.errors import ClusterError

    try:
        paths.head_binary()
    except ClusterError as error:
        pytest.skip(str(error))
    report = tmp_path / "report.json"
    env = clean_environment() | {"PYTHONPATH": str(ROOT / "python")}
    shape = ("--slices", "2", "--devices-per-host", "4")
    prefix = (sys.executable, "-m", "causeway.cli", "run", *shape, "--")
    output = run(env, EXAMPLES / "train_lm.py", *SMALL_LM, "--json", report, prefix=prefix)
    found = json.loads(report.read_text())
    assert found["mesh"] == {"data": 2, "model": 4}, output
    assert found["losses"] == pytest.approx(plain_losses, rel=LOSS_RTOL)


def test_lm_on_a_cluster_of_another_shape(
    cluster: Any, plain_losses: list[float], tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    run(cluster.env, EXAMPLES / "train_lm.py", *SMALL_LM, "--json", report)
    found = json.loads(report.read_text())
    assert found["mesh"] == {"data": 2, "model": 2}
    assert found["losses"] == pytest.approx(plain_losses, rel=LOSS_RTOL)


def test_digits_on_a_cluster(cluster: Any) -> None:
    output = run(cluster.env, EXAMPLES / "digits.py")
    assert accuracy_in(output) > 95
    assert f"on {cluster.devices} devices" in output


def test_mpmd_on_a_cluster(cluster: Any) -> None:
    output = run(cluster.env, EXAMPLES / "mpmd.py", "--check", "--steps=10")
    assert "lower half on devices [0, 1], upper on [2, 3]" in output
    assert "check passed: 10 losses" in output


def test_notebook_on_a_cluster(cluster: Any) -> None:
    output = run(cluster.env, "-c", RUN_NOTEBOOK, NOTEBOOK)
    assert f"all cells ran on {cluster.devices} devices" in output
    assert "slice 1" in output


# ---------------------------------------------------------------- three slices, one is lost


def test_elastic_training(three_slices: Any, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    flags = ("--steps=60", "--kill-at=30", "--json", report)
    output = run(three_slices.env, EXAMPLES / "train_elastic.py", *flags)
    found = json.loads(report.read_text())
    assert [event["kind"] for event in found["events"]] == ["lost", "back"], output
    # The snapshot before the loss was taken at step 20 or 30, every tenth step.
    assert found["events"][0]["step"] in (20, 30)
    assert "on slices [0, 2]" in output and "on slices [0, 1, 2]" in output
    assert "killed by signal 9" in output
    assert len(found["losses"]) >= 60
    assert found["losses"][-1] < 0.3 * found["losses"][0]


def test_elastic_training_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    code = (
        "import sys; from pathlib import Path; import train_elastic; "
        "train_elastic.draw({n: 2.0 / (n + 1) for n in range(50)}, "
        "[{'kind': 'lost', 'step': 20}, {'kind': 'back', 'step': 35}], Path(sys.argv[1]))"
    )
    paths = [str(EXAMPLES), str(ROOT / "python"), os.environ.get("PYTHONPATH", "")]
    env = clean_environment() | {"PYTHONPATH": os.pathsep.join(paths)}
    run(env, "-c", code, tmp_path / "losses.png")
    image = (tmp_path / "losses.png").read_bytes()
    assert image.startswith(b"\x89PNG\r\n") and len(image) > 5000


def test_elastic_training_with_pathwaysutils(three_slices: Any, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    script = str(EXAMPLES / "train_elastic_pathwaysutils.py")
    flags = ["--steps=80", "--checkpoint-every=10", "--attempts=3", f"--json={report}"]
    log = tmp_path / "log"
    with log.open("wb") as errors, subprocess.Popen(
        [sys.executable, "-u", script, *flags],
        env=three_slices.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
        text=True,
    ) as program:
        watchdog = threading.Timer(100, program.kill)
        watchdog.start()
        assert program.stdout is not None
        seen = []
        for line in program.stdout:
            seen.append(line)
            if "on slices [0, 1, 2]" in line and len(seen) == 2:
                three_slices.ask("kill", 1)
            if "on slices [0, 2]" in line:
                three_slices.ask("restore", 1)
        watchdog.cancel()
    assert program.returncode == 0, f"{seen}\n{log.read_text()[-3000:]}"
    attempts = json.loads(report.read_text())["attempts"]
    assert [attempt["slices"] for attempt in attempts] == [[0, 1, 2], [0, 2], [0, 1, 2]]
    assert attempts[2]["step"] % 10 == 0 and attempts[2]["step"] > 0
