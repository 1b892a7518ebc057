#!/usr/bin/env python3
"""A stand-in for causewayd: takes its flags, lets fake workers join, and answers over HTTP."""

from __future__ import annotations

import argparse
import http.server
import json
import os
import socket
import sys
import threading
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser()
    for flag in ("proxy-port", "server-port", "ops-port", "slices", "hosts-per-slice",
                 "devices-per-host"):
        parser.add_argument(f"--{flag}", type=int, required=True)
    for flag in ("host", "platform", "announce-slices", "ready-file"):
        parser.add_argument(f"--{flag}", required=True)
    parser.add_argument("--shared-dir", default="")
    parser.add_argument("--transfer-checksums", default="")
    parser.add_argument("--compile-cache", default="")
    parser.add_argument("--compile-cache-bytes", type=int, default=0)
    options = parser.parse_args()
    if os.environ.get("FAKE_HEAD_FAILS"):
        print("fake head: told to fail", file=sys.stderr)
        return 3
    if os.environ.get("FAKE_HEAD_IGNORES_SIGTERM"):
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    proxy = socket.create_server((options.host, options.proxy_port))
    server = socket.create_server((options.host, options.server_port))
    joined: dict[int, int] = {}  # pid by worker

    def attend(connection: socket.socket) -> None:
        worker = -1
        try:
            worker, pid = map(int, connection.recv(64).split())
            joined[worker] = pid
            connection.recv(1)
        except (OSError, ValueError):
            pass
        joined.pop(worker, None)

    def accept() -> None:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=attend, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    workers = options.slices * options.hosts_per_slice

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            def state(worker: int) -> str:
                return "alive" if worker in joined else "lost"

            answers = {
                "/health": {"ok": True},
                "/status": {
                    "workers": [
                        {"id": n, "slice": n // options.hosts_per_slice, "state": state(n),
                         "alive": n in joined, "pid": joined.get(n, 0)}
                        for n in range(workers)
                    ],
                    "gauges": {"spares": 0},
                },
                "/devices": {
                    "devices": [
                        {
                            "id": d,
                            "kind": options.platform,
                            "worker": d // options.devices_per_host,
                            "slice": d // options.devices_per_host // options.hosts_per_slice,
                            "state": state(d // options.devices_per_host),
                        }
                        for d in range(workers * options.devices_per_host)
                    ]
                },
            }
            body = json.dumps(answers.get(self.path, {})).encode()
            self.send_response(200 if self.path in answers else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    web = http.server.ThreadingHTTPServer((options.host, options.ops_port), Handler)
    ready = {
        "pid": os.getpid(),
        "proxy_port": proxy.getsockname()[1],
        "server_port": server.getsockname()[1],
        "ops_port": web.server_address[1],
    }
    temporary = Path(options.ready_file + ".tmp")
    temporary.write_text(json.dumps(ready))
    temporary.replace(options.ready_file)
    print(f"fake head ready: {sys.argv[1:]}", flush=True)
    web.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
