"""Fixtures for tests of the command line: a private state folder and the fake head and worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_harness import Cli, against_fakes


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    # Deliberately long: the control socket must work beyond the kernel's limit on its path.
    state = tmp_path / ("state-" + "x" * 90)
    monkeypatch.setenv("CAUSEWAY_STATE_DIR", str(state))
    harness = against_fakes(state)
    yield harness
    harness.run("down", "--all")
