"""What this machine can do at best, measured in the same run as everything else."""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable

_COPY_BYTES = 64 << 20
_STREAM_BYTES = 256 << 20
_CHUNK = 1 << 20


def measure(quick: bool) -> dict[str, float]:
    rounds = 200 if quick else 3000
    stream = _STREAM_BYTES // (16 if quick else 1)
    tcp = _tcp_pair()
    unix = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        return {
            "cpus": float(os.cpu_count() or 1),
            "memcpy_gb_s": _memcpy(2 if quick else 10),
            "tcp_rtt_us": _round_trip(tcp, rounds),
            "unix_rtt_us": _round_trip(unix, rounds),
            "tcp_gb_s": _stream(tcp, stream),
            "unix_gb_s": _stream(unix, stream),
        }
    finally:
        for end in (*tcp, *unix):
            end.close()


def _memcpy(times: int) -> float:
    import numpy as np

    source = np.ones(_COPY_BYTES, np.uint8)
    target = np.empty_like(source)
    np.copyto(target, source)
    rates = []
    for _ in range(times):
        begin = time.perf_counter()
        np.copyto(target, source)
        rates.append(_COPY_BYTES / (time.perf_counter() - begin) / 1e9)
    return statistics.median(rates)


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def _round_trip(pair: tuple[socket.socket, socket.socket], rounds: int) -> float:
    """Microseconds for 64 bytes to another process and back, both asleep in between."""
    near, far = pair

    def echo() -> None:
        for _ in range(rounds):
            far.sendall(far.recv(64))

    times = []
    pid = _fork(echo)
    for _ in range(rounds):
        begin = time.perf_counter()
        near.sendall(b"x" * 64)
        near.recv(64)
        times.append((time.perf_counter() - begin) * 1e6)
    os.waitpid(pid, 0)
    return statistics.median(times)


def _stream(pair: tuple[socket.socket, socket.socket], total: int) -> float:
    near, far = pair

    def sink() -> None:
        buffer = bytearray(_CHUNK)
        left = total
        while left > 0:
            left -= far.recv_into(buffer)
        far.sendall(b"!")

    pid = _fork(sink)
    chunk = bytes(_CHUNK)
    begin = time.perf_counter()
    for _ in range(total // _CHUNK):
        near.sendall(chunk)
    near.recv(1)
    seconds = time.perf_counter() - begin
    os.waitpid(pid, 0)
    return total / seconds / 1e9


def _fork(body: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(0)
    return pid
