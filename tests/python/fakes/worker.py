"""A stand-in for a worker: joins the fake head and stays; fails in the ways it is told to."""

from __future__ import annotations

import argparse
import os
import socket
import sys


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--head", required=True)
    parser.add_argument("--worker", type=int, required=True)
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--platform", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    failure = os.environ.get("FAKE_WORKER_FAILS", "")
    if failure == "no jaxlib":
        raise ModuleNotFoundError("No module named 'jaxlib'", name="jaxlib")
    if failure:
        print(f"fake worker: {failure}", file=sys.stderr)
        return 9
    host, port = options.head.rsplit(":", 1)
    own = socket.create_server(("127.0.0.1", options.port))
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{options.worker} {os.getpid()}".encode())
        print(f"fake worker {options.worker} joined, port {own.getsockname()[1]}", flush=True)
        connection.recv(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
