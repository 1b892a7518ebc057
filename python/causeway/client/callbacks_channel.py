"""The connection to the head over which a cluster's workers call this process's functions.

One channel a process and client. Its random token is in the programs' custom calls and in the first
frame; who does not know it cannot answer. Frames are described in src/causeway/callbacks/frame.h.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from causeway.client import callbacks_values
from causeway.client.callbacks_threads import Strands, Threads

log = logging.getLogger("causeway.client")

Function = Callable[..., Sequence[Any]]

_MAGIC = b"CWCB"
_VERSION = 1
_HEADER = struct.Struct("<IHHQQ")
_PAYLOAD_BYTES_MAX = 1 << 20
_MESSAGE_BYTES_MAX = 1 << 36
_TOKEN_CHARS = 32
_LAST, _FIRST = 1, 2
_CLIENT_HELLO, _WELCOME, _REFUSED, _CALL = 1, 3, 4, 5
_RESULT, _ERROR, _RELEASE, _WORKER_GONE = 6, 7, 10, 12
# The canonical code of what a user's function raises: a mistake of the user, no lost slice.
_INVALID_ARGUMENT = 3

# Failed launches over several workers that are remembered; one is of interest until its end.
_FAILED_RUNS_MAX = 256

_CONNECT_SECONDS = 10.0
_RECONNECT_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 10.0)


class Refused(ConnectionError):
    """The head answered, and does not want this channel."""


class _Incoming:
    """A call whose pieces are still arriving."""

    def __init__(self, size: int) -> None:
        if size > _MESSAGE_BYTES_MAX:
            raise ConnectionError(f"a host callback's operands of {size} bytes are too large")
        # NumPy arrays over the operands should be aligned, so the message itself has to be.
        room = np.empty(size + callbacks_values.ALIGNMENT, np.uint8)
        skip = -room.ctypes.data % callbacks_values.ALIGNMENT
        self.message = memoryview(room)[skip : skip + size]
        self.have = 0


class Channel:
    """Thread-safe. Functions belong to groups, one a program; the head says when a group may go."""

    def __init__(self, host: str, port: int) -> None:
        self.token = secrets.token_hex(_TOKEN_CHARS // 2)
        self.pid = os.getpid()
        self._address = (host, port)
        self._group_numbers = itertools.count(1)
        self._groups: dict[int, list[Function]] = {}
        self._strands = Strands(Threads())
        self._lock = threading.Lock()  # of _socket and _failed_runs
        self._sending = threading.Lock()
        self._socket: socket.socket | None = None
        self._failed_runs: dict[int, str] = {}

    # ------------------------------------------------------------------ functions

    def add(self, functions: Sequence[Function]) -> int:
        group = next(self._group_numbers)
        self._groups[group] = list(functions)
        return group

    def drop(self, group: int) -> None:
        self._groups.pop(group, None)

    def attribute(self, group: int) -> str:
        """What the custom calls of the group's program carry."""
        return f"causeway-callbacks:{self.token}:{group};"

    # ----------------------------------------------------------------- connection

    def connect(self) -> None:
        """Returns once the head has accepted the channel; cheap when it has."""
        with self._lock:
            if self._socket is not None:
                return
            self._socket = connection = self._open()
        threading.Thread(
            target=self._read, args=(connection,), daemon=True, name="causeway-callback-reader"
        ).start()

    def _open(self) -> socket.socket:
        connection = socket.create_connection(self._address, timeout=_CONNECT_SECONDS)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
            hello = _MAGIC + struct.pack("<I", _VERSION) + self.token.encode()
            connection.sendall(_header(_CLIENT_HELLO, _FIRST | _LAST, 0, 0, len(hello)) + hello)
            size, kind, *_ = _HEADER.unpack(_receive(connection, _HEADER.size))
            text = bytes(_receive(connection, size))
            if kind != _WELCOME:
                raise Refused(
                    f"the head refused the callback channel: {text.decode(errors='replace')}"
                )
            connection.settimeout(None)
            return connection
        except BaseException:
            connection.close()
            raise

    def _read(self, connection: socket.socket) -> None:
        pauses = iter(_RECONNECT_PAUSES)
        while True:
            try:
                self._read_frames(connection)
            except (OSError, EOFError) as error:
                log.debug("callback channel lost: %s", error)
            except Exception:
                log.exception("callback channel")
            # Programs that exist already name this token, so it is worth to come back. A new head
            # counts its launches from the beginning.
            connection.close()
            self._failed_runs.clear()
            again = self._reopen(pauses)
            with self._lock:
                self._socket = again
            if again is None:
                return
            connection = again

    def _reopen(self, pauses: Any) -> socket.socket | None:
        for pause in pauses:
            time.sleep(pause)
            try:
                return self._open()
            except OSError as error:
                log.debug("callback channel not back: %s", error)
        log.warning("host callbacks of running programs fail: the head's callback port is gone")
        return None

    def _read_frames(self, connection: socket.socket) -> None:
        incoming: dict[tuple[int, int], _Incoming] = {}
        header = memoryview(bytearray(_HEADER.size))
        while True:
            _receive_into(connection, header)
            size, kind, flags, worker, call = _HEADER.unpack(header)
            if size > _PAYLOAD_BYTES_MAX:
                raise ConnectionError(f"a frame of {size} bytes on the callback channel")
            if kind == _CALL:
                self._read_piece(connection, incoming, size, flags, worker, call)
                continue
            payload = bytes(_receive(connection, size))
            if kind == _RELEASE:
                self.drop(call)
            elif kind == _WORKER_GONE:
                for key in [k for k in incoming if k[0] == worker]:
                    del incoming[key]
                self._strands.discard(lambda key, gone=worker: key[0] == gone)  # type: ignore
            elif kind == _REFUSED:
                raise Refused(payload.decode(errors="replace"))

    def _read_piece(
        self,
        connection: socket.socket,
        incoming: dict[tuple[int, int], _Incoming],
        size: int,
        flags: int,
        worker: int,
        call: int,
    ) -> None:
        _receive(connection, _TOKEN_CHARS)
        size -= _TOKEN_CHARS
        if flags & _FIRST:
            (total,) = struct.unpack("<Q", _receive(connection, 8))
            size -= 8
            incoming[worker, call] = _Incoming(total)
        message = incoming.get((worker, call))
        if message is None:  # its worker was gone when it began
            _receive(connection, size)
            return
        _receive_into(connection, message.message[message.have : message.have + size])
        message.have += size
        if not flags & _LAST:
            return
        del incoming[worker, call]
        parsed = callbacks_values.parse_call(message.message)
        # Calls of one run on one device keep their order; devices and runs go side by side.
        self._strands.submit(
            (worker, parsed.run, parsed.device), lambda: self._serve(worker, call, parsed)
        )

    # ---------------------------------------------------------------------- calls

    def _serve(self, worker: int, call: int, parsed: callbacks_values.Call) -> None:
        # After a failure the launch goes on with zeros, on its other workers too: no function may
        # see what comes of them.
        failed = self._failed_runs.get(parsed.run) if parsed.shared else None
        if failed is not None:
            self._fail(worker, call, failed)
            return
        try:
            parts = self._run(parsed)
        except BaseException as error:  # KeyboardInterrupt and SystemExit as well: tell, go on
            text = "".join(traceback.format_exception(error))
            text = f"CpuCallback error calling callback: {text}"
            if parsed.shared:
                self._remember(parsed.run, text)
            self._fail(worker, call, text)
            return
        try:
            self._answer(worker, call, parts)
        except OSError as error:
            log.debug("a host callback's result is lost: %s", error)

    def _run(self, parsed: callbacks_values.Call) -> list[memoryview]:
        functions = self._groups.get(parsed.group)
        if functions is None or parsed.index >= len(functions):
            raise RuntimeError(
                "the Python function of this host callback is gone; compile the program again"
            )
        results = functions[parsed.index](*parsed.operands)
        return [callbacks_values.result_bytes(result) for result in results]

    def _remember(self, run: int, text: str) -> None:
        with self._lock:
            if len(self._failed_runs) == _FAILED_RUNS_MAX:
                del self._failed_runs[next(iter(self._failed_runs))]
            self._failed_runs.setdefault(run, text)

    def _answer(self, worker: int, call: int, parts: list[memoryview]) -> None:
        payload = bytearray(struct.pack("<Q", sum(part.nbytes for part in parts)))
        flags = _FIRST
        for part in parts:
            at = 0
            while at < part.nbytes:
                if len(payload) == _PAYLOAD_BYTES_MAX:
                    self._send(_header(_RESULT, flags, worker, call, len(payload)), payload)
                    payload = bytearray()
                    flags = 0
                room = _PAYLOAD_BYTES_MAX - len(payload)
                payload += part[at : at + room]
                at += room
        self._send(_header(_RESULT, flags | _LAST, worker, call, len(payload)), payload)

    def _fail(self, worker: int, call: int, text: str) -> None:
        # The end of a long traceback tells more than its middle.
        encoded = text.encode()
        if len(encoded) > _PAYLOAD_BYTES_MAX // 2:
            encoded = encoded[:4096] + b"\n...\n" + encoded[-(_PAYLOAD_BYTES_MAX // 4) :]
        payload = struct.pack("<I", _INVALID_ARGUMENT) + encoded
        try:
            self._send(_header(_ERROR, _FIRST | _LAST, worker, call, len(payload)), payload)
        except OSError as error:
            log.debug("a host callback's error is lost: %s", error)

    def _send(self, header: bytes, payload: bytes | bytearray) -> None:
        connection = self._socket
        if connection is None:
            raise ConnectionError("the callback channel is closed")
        with self._sending:
            connection.sendall(header + payload)


def _header(kind: int, flags: int, worker: int, call: int, size: int) -> bytes:
    return _HEADER.pack(size, kind, flags, worker, call)


def _receive(connection: socket.socket, size: int) -> memoryview:
    room = memoryview(bytearray(size))
    _receive_into(connection, room)
    return room


def _receive_into(connection: socket.socket, room: memoryview) -> None:
    have = 0
    while have < len(room):
        count = connection.recv_into(room[have:])
        if not count:
            raise EOFError("closed by the head")
        have += count
