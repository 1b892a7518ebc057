"""The documents say what the code says: names, numbers and links that a machine can compare."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
DOCS += [*sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md"]
SOURCES = ROOT / "src" / "causeway"


def text(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.name)
def test_links_lead_somewhere(file: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = file.parent / path if path else file
        assert found.exists(), f"{file.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{file.name} links to {target}"


def test_every_client_patch_is_described() -> None:
    from causeway import client

    described = set(re.findall(r"^\| `([\w-]+)` \|", _section("The client package"), re.MULTILINE))
    assert described == {patch.name for patch in client.PATCHES}


def _section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text("docs/compatibility.md"), re.M | re.S)
    assert found, title
    return found[1]


def test_protocol_versions_are_those_of_the_proxy() -> None:
    source = (SOURCES / "proxy" / "version.h").read_text()
    pattern = r"k{}Version{{\.protocol = (\d+), \.serdes = (\d+)}}"
    (low, low_serdes), (high, high_serdes) = (
        re.search(pattern.format(which), source).groups()  # type: ignore[union-attr]
        for which in ("Min", "Max")
    )
    versions = _section("Versions")
    assert f"| IFRT proxy protocol | {low} to {high} " in versions
    assert f'("serdes") | {low_serdes} to {high_serdes} |' in versions


def test_every_command_is_described() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "causeway.cli", "--help"],
        env={"PYTHONPATH": str(ROOT / "python"), "COLUMNS": "200", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    commands = set(re.findall(r"^[│|] ([a-z]+) {2,}", done.stdout, re.MULTILINE))
    assert {"up", "down", "run"} <= commands, done.stdout
    operations = text("docs/operations.md")
    missing = {name for name in commands if not re.search(rf"`(causeway )?{name}\b", operations)}
    assert not missing


def test_exit_statuses_are_those_of_the_code() -> None:
    from causeway.cluster.errors import ExitCode

    table = text("docs/operations.md").split("### Exit statuses")[1].split("## ")[0]
    assert {int(n) for n in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == set(ExitCode)


def test_ports_are_the_defaults() -> None:
    from causeway.cluster.options import ClusterOptions

    options, operations = ClusterOptions(), text("docs/operations.md")
    assert f"| {options.proxy_port} | `--proxy-port` |" in operations
    assert f"| {options.server_port} | `--server-port` |" in operations
    assert f"| {options.ops_port} | `--ops-port` |" in operations
    assert f"| {options.worker_port} + N | `--worker-port` |" in operations


def test_every_counter_is_described() -> None:
    source = (SOURCES / "controller" / "status.cc").read_text()
    counters = re.findall(r'\{"(\w+)", counters_\.', source)
    assert counters
    # As /metrics names them.
    names = [name.removesuffix("_total") + "_total" for name in counters]
    names += re.findall(r'\{"(\w+)", (?:live_|static_cast)', source)
    operations = text("docs/operations.md")
    assert not [name for name in names if f"`{name}`" not in operations]


def test_every_floor_is_described() -> None:
    cmake = (SOURCES / "CMakeLists.txt").read_text()
    listed = re.search(r"foreach\(folder ([^)]+)\)", cmake)
    assert listed
    architecture = text("docs/architecture.md")
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", architecture, re.MULTILINE)
    existing = [name for name in listed[1].split() if (SOURCES / name / "CMakeLists.txt").is_file()]
    assert {name for _, name in rows} == set(existing)
    # The floors rise in the order in which CMake adds the folders.
    order = [int(floor) for name in existing for floor, row in rows if row == name]
    assert order == sorted(order)
