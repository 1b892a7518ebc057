"""A cluster as a test sees it, and clients of it that are told step by step what to do."""

from __future__ import annotations

import json
import re
import select
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PRELUDE = """
import jax, jax.numpy as jnp, numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
devices = jax.devices()
mesh = Mesh(np.array(devices), ("x",))
rows = NamedSharding(mesh, P("x"))
"""


class ClientError(Exception):
    """The exception that a command raised in the client."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Client:
    """A stock JAX process of its own, driven by commands."""

    def __init__(self, env: Mapping[str, str], log: Path) -> None:
        self._log = log.open("ab")
        self.log_path = log
        self._process = subprocess.Popen(
            [sys.executable, "-u", str(HERE / "driver.py")],
            env={**env, "TF_CPP_MIN_LOG_LEVEL": "2"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            bufsize=1,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self, code: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"code": textwrap.dedent(code)}) + "\n")

    def finish(self, timeout: float = 60.0) -> Any:
        """The value of the command begun last; throws ClientError, or TimeoutError."""
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        if not ready:
            raise TimeoutError(f"no answer within {timeout} s; log: {self._tail()}")
        line = self._process.stdout.readline()
        if not line:
            raise ClientError("Ended", f"the client ended; log: {self._tail()}")
        answer = json.loads(line)
        if "error" in answer:
            raise ClientError(answer["type"], answer["error"])
        return answer["value"]

    def do(self, code: str, timeout: float = 60.0) -> Any:
        self.begin(code)
        return self.finish(timeout)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10.0)

    def close(self) -> None:
        """Ends it as a user's program ends: its input is over."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(20.0)
        except subprocess.TimeoutExpired:
            self.kill()
        self._log.close()

    def _tail(self) -> str:
        return self.log_path.read_text(errors="replace")[-3000:]


class Cluster:
    """A cluster of this test's own, or the shared one."""

    def __init__(self, name: str, env: dict[str, str], ops_url: str, folder: Path) -> None:
        self.name = name
        self.env = env
        self._ops_url = ops_url
        self._folder = folder
        self._clients: list[Client] = []

    def client(self, *, prelude: str = PRELUDE, env: Mapping[str, str] | None = None) -> Client:
        log = self._folder / f"client-{len(self._clients)}.log"
        client = Client({**self.env, **(env or {})}, log)
        self._clients.append(client)
        if prelude:
            client.do(prelude, timeout=90.0)
        return client

    def close(self) -> None:
        for client in self._clients:
            if client._process.poll() is None:
                client.close()

    def status(self) -> dict[str, Any]:
        return json.loads(self._get("/status"))

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics; the name is as it stands there, labels and all."""
        found = {}
        for line in self._get("/metrics").splitlines():
            matched = re.fullmatch(r"(\w+(?:\{.*\})?) (\S+)", line)
            if matched and not line.startswith("#"):
                found[matched[1]] = float(matched[2])
        return found

    def requests(self) -> dict[str, float]:
        """How many requests of each kind clients have sent so far."""
        found = {}
        for name, value in self.metrics().items():
            matched = re.search(r'requests?_total\{.*\bkind="(\w+)"', name)
            if matched:
                found[matched[1]] = value
        assert found, "the head counts no requests by kind"
        return found

    def pids(self) -> dict[str, int]:
        from causeway.cluster import state

        current = state.running(self.name)
        assert current is not None, "the cluster has ended"
        return {record.role: record.pid for record in current.processes}

    def ask(self, command: str, slice_index: int) -> dict[str, Any]:
        from causeway.cluster import paths
        from causeway.supervisor import control_socket

        message = {"command": command, "slice": slice_index}
        return control_socket.call(paths.cluster_dir(self.name), message)

    def wait_for(
        self, what: str, condition: Callable[[dict[str, Any]], bool], seconds: float = 30.0
    ) -> dict[str, Any]:
        """The head's status as soon as `condition` holds for it."""
        deadline = time.monotonic() + seconds
        while True:
            status = self.status()
            if condition(status):
                return status
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds} s: {what}; status: {status}")
            time.sleep(0.05)

    def _get(self, path: str) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self._ops_url + path, timeout=10.0) as answer:
            return answer.read().decode()
