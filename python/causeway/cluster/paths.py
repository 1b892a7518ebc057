"""Where things lie: state folders, the head's binary, the folder for PYTHONPATH."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from pathlib import Path

from causeway.cluster.errors import ClusterError, ExitCode

PACKAGE = Path(__file__).resolve().parent.parent


def state_root() -> Path:
    """Parent of every cluster's folder; falls back to a private temporary one without a home."""
    chosen = os.environ.get("CAUSEWAY_STATE_DIR")
    if chosen:
        return Path(chosen).absolute()
    base = os.environ.get("XDG_STATE_HOME")
    root = Path(base) if base else Path.home() / ".local" / "state"
    existing = next((p for p in [root, *root.parents] if p.exists()), Path("/"))
    if os.access(existing, os.W_OK):
        return root / "causeway"
    return Path(tempfile.gettempdir()) / f"causeway-{os.getuid()}"


def cache_root() -> Path:
    """Parent of what may be deleted at any time; beside the state where that was moved."""
    chosen = os.environ.get("CAUSEWAY_CACHE_DIR")
    if chosen:
        return Path(chosen).absolute()
    if os.environ.get("CAUSEWAY_STATE_DIR"):
        return state_root() / ".cache"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "causeway"


def compile_cache_dir(asked: str) -> Path | None:
    """Where compiled programs are kept: `asked` is "auto", "off" (then None) or a folder."""
    if asked == "off":
        return None
    return cache_root() / "programs" if asked == "auto" else Path(asked).absolute()


def cluster_dir(name: str) -> Path:
    return state_root() / name


def checkout_root() -> Path | None:
    """The source checkout this package runs from, or None when it is installed."""
    chosen = os.environ.get("CAUSEWAY_ROOT")
    root = Path(chosen) if chosen else PACKAGE.parent.parent
    return root if (root / "CMakePresets.json").is_file() else None


def build_dir() -> Path | None:
    root = checkout_root()
    return root / "build" / "release" if root else None


def head_binary() -> Path:
    """The head's program: CAUSEWAY_HEAD_BINARY, the installed package's, or the build's."""
    chosen = os.environ.get("CAUSEWAY_HEAD_BINARY")
    candidates = [Path(chosen)] if chosen else [PACKAGE / "_native" / "causewayd"]
    build = build_dir()
    if build and not chosen:
        candidates.append(build / "causeway" / "bin" / "causewayd")
    for candidate in candidates:
        if os.access(candidate, os.X_OK):
            return candidate
    raise ClusterError(
        "the head's program causewayd is not built (looked at "
        + ", ".join(map(str, candidates))
        + "): run ./causeway build",
        ExitCode.DO_NOT_RETRY,
    )


def worker_command() -> list[str]:
    """The words that start a worker, before its options."""
    chosen = os.environ.get("CAUSEWAY_WORKER_COMMAND")
    return shlex.split(chosen) if chosen else [sys.executable, "-m", "causeway.worker"]


def client_path(scratch: Path) -> Path:
    """A folder that, on PYTHONPATH, offers this client package and nothing else.

    In a checkout that is the folder `python`. An installed package lies among all others of its
    environment, which must not leak into another one: `scratch` then gets links to ours alone.
    """
    parent = PACKAGE.parent
    if checkout_root() and parent.name == "python":
        return parent
    folder = scratch / "client-path"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("causeway", "jax_plugins"):
        source = parent / name
        if name == "jax_plugins":
            (folder / name).mkdir(exist_ok=True)
            source, name = source / "causeway", "jax_plugins/causeway"
        link = folder / name
        if link.is_symlink() and link.readlink() != source:
            link.unlink()
        if not link.exists():
            link.symlink_to(source)
    return folder
