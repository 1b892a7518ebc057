"""How tests run the command line: in processes of its own, against the fake head and worker."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
FAKES = Path(__file__).resolve().parent / "fakes"
FREE_PORTS = ["--proxy-port=0", "--server-port=0", "--ops-port=0", "--worker-port=0"]


@dataclasses.dataclass
class Cli:
    """Runs the command line in processes of its own, against the fakes."""

    state: Path
    env: dict[str, str]

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "causeway.cli", *arguments]

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ok(self, *arguments: str, **env: str) -> dict[str, Any]:
        """Runs with JSON output, expects success and returns the report."""
        done = self.run(*arguments, "--output=json", **env)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def up(self, *arguments: str, **env: str) -> dict[str, Any]:
        return self.ok("up", *FREE_PORTS, "--timeout=20", *arguments, **env)

    def state_file(self, name: str = "default") -> dict[str, Any]:
        return json.loads((self.state / name / "state.json").read_text())


def against_fakes(state: Path) -> Cli:
    """A command line whose clusters live in `state` and consist of the fakes."""
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("CAUSEWAY_", "JAX_", "IFRT_", "FAKE_"))
    }
    env |= {
        "PYTHONPATH": str(ROOT / "python"),
        "CAUSEWAY_STATE_DIR": str(state),
        "CAUSEWAY_HEAD_BINARY": str(FAKES / "head.py"),
        "CAUSEWAY_WORKER_COMMAND": f"{sys.executable} {FAKES / 'worker.py'}",
    }
    return Cli(state, env)
