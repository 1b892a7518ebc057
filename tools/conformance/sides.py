"""The two sides a test file runs on: local CPU devices, and a Causeway cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = ROOT / "python"
_NOT_PASSED_ON = ("JAX_", "IFRT_PROXY_", "XLA_FLAGS", "PYTHONPATH", "NPROC", "PJRT_NPROC")


def _common() -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_PASSED_ON)}
    env["JAX_SKIP_SLOW_TESTS"] = "1"
    env["TF_CPP_MIN_LOG_LEVEL"] = "3"
    cases = os.environ.get("JAX_NUM_GENERATED_CASES")
    if cases:
        env["JAX_NUM_GENERATED_CASES"] = cases
    return env


class LocalSide:
    """Virtual CPU devices in the test's own process."""

    name = "local"

    def __init__(self, devices: int) -> None:
        self._devices = devices

    def environment(self) -> dict[str, str]:
        env = _common()
        env["JAX_PLATFORMS"] = "cpu"
        env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={self._devices}"
        # With a small pool XLA:CPU starves itself when many programs of 8 devices are in flight.
        env["NPROC"] = env["PJRT_NPROC"] = str(4 * self._devices)
        return env

    def after_trouble(self) -> str:
        return ""

    def close(self) -> None:
        pass


class RunningClusterSide:
    """A cluster that somebody else started, named by JAX_BACKEND_TARGET."""

    name = "causeway"

    def __init__(self, target: str) -> None:
        self._target = target

    def environment(self) -> dict[str, str]:
        return {
            **_common(),
            "JAX_PLATFORMS": "proxy",
            "JAX_BACKEND_TARGET": self._target,
            "IFRT_PROXY_USE_INSECURE_GRPC_CREDENTIALS": "true",
            "IFRT_PROXY_GRPC_MAX_ONGOING_HOST_BUFFER_STORES": "64",
            "PYTHONPATH": str(PYTHON),
        }

    def after_trouble(self) -> str:
        return ""

    def close(self) -> None:
        pass


class OwnClusterSide:
    """A cluster of this tool's own; a new one takes its place after trouble."""

    name = "causeway"
    _starting = threading.Lock()

    def __init__(self, number: int, devices: int, hosts: int, state: Path) -> None:
        sys.path.insert(0, str(PYTHON))
        os.environ["CAUSEWAY_STATE_DIR"] = str(state)
        from causeway.cluster.options import ClusterOptions

        self._shape = ClusterOptions(
            name=f"conformance-{os.getpid()}-{number}",
            slices=1,
            hosts_per_slice=hosts,
            devices_per_host=devices // hosts,
        ).on_free_ports()
        self._state = None

    def environment(self) -> dict[str, str]:
        from causeway.cluster import environment, launcher
        from causeway.cluster.errors import ClusterError

        for last in (False, False, True):
            if self._state is not None:
                break
            try:
                with self._starting:
                    self._state, _ = launcher.start(
                        self._shape, timeout_seconds=300.0, owner_pid=os.getpid()
                    )
            except ClusterError:
                # A machine that is too busy for a while must not end a run of hours.
                launcher.stop(self._shape.name)
                if last:
                    raise
        return environment.for_command(self._state, _common(), PYTHON)

    def after_trouble(self) -> str:
        """What the cluster looks like after a test process broke off; then it is ended."""
        from causeway.cluster import state

        found = state.running(self._shape.name)
        if found is None:
            remark = "the cluster was gone"
        else:
            restarts = [f"{p.role} ended: {p.reason}" for p in found.processes if p.restarts]
            remark = "; ".join(restarts) or (found.reason if found.phase == "failed" else "")
        self.close()
        return remark

    def close(self) -> None:
        from causeway.cluster import launcher

        if self._state is not None:
            launcher.stop(self._shape.name)
            self._state = None


def run_pytest(
    side: LocalSide | RunningClusterSide | OwnClusterSide,
    file: Path,
    log: Path,
    test_seconds: int,
    seconds: float,
    expression: str,
    sample: int,
    only: Path | None,
    scope: str,
    say: Callable[[str], None],
) -> int:
    """One test process; returns its exit status, 124 after `seconds`."""
    env = side.environment()
    env["CONFORMANCE_LOG"] = str(log)
    env["CONFORMANCE_TEST_SECONDS"] = str(test_seconds)
    env["CONFORMANCE_SAMPLE"] = str(sample)
    env["CONFORMANCE_SCOPE"] = scope
    if only:
        env["CONFORMANCE_ONLY"] = str(only)
    plugin = str(Path(__file__).resolve().parent)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH", ""), plugin]))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "recorder", "-p", "no:cacheprovider"]
    # The checkout's own root must stay off the path: the installed jax is what is tested.
    command += ["-c", os.devnull, "--noconftest", f"--rootdir={file.parent}", "--tb=short"]
    command += ["-W", "ignore"]
    if expression:
        command += ["-k", expression]
    command.append(str(file))
    with log.with_suffix(".out").open("ab") as out:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            say(f"{side.name} {file.name}: no time left for the rest of it")
            return 124
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
