"""The Unix socket through which commands reach a supervisor: one JSON line in, one out."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NAME = "control.sock"
_LINE_BYTES_MAX = 1 << 20


class SupervisorUnreachable(Exception):
    """No supervisor listens, or it did not answer within the bound."""


@contextlib.contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """The socket's path in a form below the kernel's limit of 107 characters."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{_NAME}"
    finally:
        os.close(descriptor)


def listen(folder: Path) -> socket.socket:
    (folder / _NAME).unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _short_path(folder) as path:
        server.bind(path)
    (folder / _NAME).chmod(0o600)
    server.listen(16)
    server.setblocking(False)
    return server


def read_line(connection: socket.socket) -> dict[str, Any]:
    received = b""
    while not received.endswith(b"\n"):
        chunk = connection.recv(65536)
        if not chunk or len(received) > _LINE_BYTES_MAX:
            raise SupervisorUnreachable("the line ended early")
        received += chunk
    message = json.loads(received)
    if not isinstance(message, dict):
        raise SupervisorUnreachable("the line is no JSON object")
    return message


def write_line(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def call(folder: Path, message: dict[str, Any], timeout_seconds: float = 15.0) -> dict[str, Any]:
    """Sends one command to the supervisor of the cluster in `folder` and returns its answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_seconds)
            with _short_path(folder) as path:
                connection.connect(path)
            write_line(connection, message)
            return read_line(connection)
    except (OSError, ValueError) as error:
        raise SupervisorUnreachable(f"{folder / _NAME}: {error}") from error
