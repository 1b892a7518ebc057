"""Runs a program against a cluster as if the shell had started it: signals and exit status pass."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from causeway.cluster.errors import ClusterError, ExitCode

_FORWARDED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
_SI_KERNEL = 0x80  # the terminal sent it, to the whole foreground group


def run(command: list[str], env: Mapping[str, str]) -> int:
    """Returns what a shell would: the exit status, or 128 + the signal that ended the program.

    The caller must have one thread only: signals are taken synchronously while this runs.
    """
    path = shutil.which(command[0], path=env.get("PATH"))
    if path is None:
        raise ClusterError(
            f"there is no program {command[0]!r} on PATH: check its spelling, or give its path",
            ExitCode.NO_PROGRAM,
        )
    watched = _FORWARDED | {signal.SIGCHLD}
    old = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        pid = os.posix_spawn(path, command, env, setsigmask=old, setsigdef=list(_FORWARDED))
        return _wait(pid, watched)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _wait(pid: int, watched: set[signal.Signals]) -> int:
    while True:
        info = signal.sigwaitinfo(watched)
        if info.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif info.si_code != _SI_KERNEL:
            # What the terminal sends reaches the program by itself; a second copy would look like
            # an impatient second Ctrl-C.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, info.si_signo)


def with_jax_on_path(command: list[str], env: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Puts this interpreter first on PATH when the command's own `python` has no JAX.

    Returns the environment and a remark for the user, "" when nothing was changed.
    """
    result = dict(env)
    if Path(command[0]).name not in ("python", "python3") or "/" in command[0]:
        return result, ""
    found = shutil.which(command[0], path=result.get("PATH"))
    if found and _has_jax(found, result):
        return result, ""
    ours = str(Path(sys.executable).parent)
    result["PATH"] = os.pathsep.join([ours, result.get("PATH", os.defpath)])
    return result, f"{found or command[0]} has no JAX: running with {ours}/{command[0]}"


def _has_jax(python: str, env: Mapping[str, str]) -> bool:
    probe = "import importlib.util as u, sys; sys.exit(u.find_spec('jax') is None)"
    try:
        done = subprocess.run(
            [python, "-c", probe],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
