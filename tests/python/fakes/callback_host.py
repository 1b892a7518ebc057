"""One process that is both worker and client of host callbacks, with a relay process between.

The handler is registered with this process's own CPU client, and the client's hook is told that
this client is remote: all of the path is real, only the cluster is missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent.parent
sys.path.insert(0, str(ROOT / "python"))

relay: subprocess.Popen[str]


def connect() -> None:
    global relay
    import jax

    from causeway.client import callbacks as client
    from causeway.cluster import paths
    from causeway.worker import callbacks as worker

    folder = paths.build_dir()
    assert folder is not None
    relay = subprocess.Popen(
        [folder / "causeway" / "callbacks" / "causeway_callbacks_relay"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert relay.stdout is not None
    address = f"127.0.0.1:{relay.stdout.readline().split()[1]}"
    os.environ[client.VARIABLE] = address
    jax.devices()
    worker.start(address, 0)
    assert worker.library().causeway_callbacks_wait(30.0)
    worker.register()
    worker.register()  # as at the next epoch
    client.is_remote = lambda backend: True
    client.install()


def tell_relay(line: str) -> dict[str, int]:
    """Sends a line to the relay and returns its counters."""
    assert relay.stdin is not None and relay.stdout is not None
    relay.stdin.write(line + "\n")
    relay.stdin.flush()
    words = relay.stdout.readline().split()
    return dict(zip(words[::2], map(int, words[1::2])))
