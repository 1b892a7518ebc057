#!/usr/bin/env python3
"""Turns what causeway_record wrote down into seeds of the fuzz targets.

    tools/fuzz_seeds.py RECORD... --seeds src/causeway/fuzz/seeds

A record between client and head gives seeds of `session` and `host_buffer`, one between head and
worker seeds of `control`, one between workers and the coordination service seeds of
`coordination`. Large payloads are cut: the code under test looks at their size, not at their
content.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

from causeway.worker.protobuf import varint

PAYLOAD_MAX = 256  # bytes of a program, an array, a text
SEED_MAX = 12 << 10
FRAMES_MAX = 60

STORE_HEADER = "ifrt-proxy-grpc-host-buffer-store-metadata"
COORDINATION = (
    "RegisterTask", "Heartbeat", "ShutdownTask", "WatchTasks", "InsertKeyValue", "GetKeyValue",
    "TryGetKeyValue", "IncrementKeyValue", "GetKeyValueDir", "DeleteKeyValue", "Barrier",
    "CancelBarrier", "GetAliveTasks", "PollForError", "ReportErrorToService",
)  # fmt: skip


@dataclasses.dataclass
class Message:
    call: int
    direction: str
    name: str
    data: bytes


def read(path: Path) -> Iterator[Message]:
    for line in path.read_text().splitlines():
        call, direction, name, *data = line.split(" ")
        yield Message(int(call), direction, name, base64.b64decode(data[0] if data else ""))


# ---------------------------------------------------------------- protocol buffers by hand


def fields(data: bytes) -> list[tuple[int, int, bytes | int]]:
    """(number, wire type, value) of each field; raises ValueError for what is no message."""
    found, at = [], 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(data) or shift > 63:
                raise ValueError("cut off")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = number()
        kind = tag & 7
        if kind == 0:
            found.append((tag >> 3, kind, number()))
            continue
        size = {1: 8, 5: 4}.get(kind) if kind != 2 else number()
        if size is None or at + size > len(data) or tag >> 3 == 0:
            raise ValueError("no message")
        found.append((tag >> 3, kind, data[at : at + size]))
        at += size
    return found


def join(parts: list[tuple[int, int, bytes | int]]) -> bytes:
    out = bytearray()
    for number, kind, value in parts:
        out += varint(number << 3 | kind)
        if isinstance(value, int):
            out += varint(value)
        else:
            out += (varint(len(value)) if kind == 2 else b"") + value
    return bytes(out)


def cut(data: bytes) -> bytes:
    """The message with its long strings and bytes cut, wherever they are."""
    try:
        parts = fields(data)
    except ValueError:
        return data[:PAYLOAD_MAX]
    if not parts:
        return data[:PAYLOAD_MAX]
    short = []
    for number, kind, value in parts:
        if kind == 2 and isinstance(value, bytes) and len(value) > PAYLOAD_MAX:
            value = cut(value)
        short.append((number, kind, value))
    return join(short)


# ---------------------------------------------------------------- frames of the targets


def frame(kind: int, data: bytes) -> bytes:
    return bytes([kind]) + varint(len(data)) + data


def session_frames(messages: list[Message]) -> Iterator[bytes]:
    stores: dict[int, tuple[int, int]] = {}  # call -> handle, bytes
    for message in messages:
        method = message.name.rpartition("/")[2]
        if message.direction == "m" and message.name.startswith(STORE_HEADER):
            values = {number: value for number, _, value in fields(message.data)}
            handle = int.from_bytes(values.get(2, b""), "little")
            stores[message.call] = (handle, int(values.get(3, 0)))
        elif message.direction == ">" and method == "IfrtSession":
            yield frame(0, cut(message.data))
        elif message.direction == ">" and method == "HostBufferStore" and message.call in stores:
            handle, size = stores.pop(message.call)
            # The whole buffer in one frame, of the size that the request's shape needs.
            yield frame(1, handle.to_bytes(8, "little") + b"\0" + bytes(min(size, 1024)))
        elif message.direction == ">" and method in ("HostBufferLookup", "HostBufferDelete"):
            values = {number: value for number, _, value in fields(message.data)}
            handle = values.get(2, b"")
            if isinstance(handle, bytes):
                yield frame(2, bytes([method == "HostBufferDelete"]) + handle)


def host_buffer_frames(messages: list[Message]) -> Iterator[bytes]:
    for message in messages:
        method = message.name.rpartition("/")[2]
        if message.direction != ">":
            continue
        handle = bytes([message.call % 8])
        if method == "HostBufferStore":
            data = cut(message.data)[:64]
            yield frame(0, handle + bytes(max(0, len(data) - 2)))
            yield frame(1, handle + data)
            yield frame(2, handle)
            yield frame(7 if message.call % 2 else 5, handle)
        elif method == "HostBufferLookup":
            yield frame(4, handle + b"bytes for the client")
            yield frame(5, handle)
        elif method == "HostBufferDelete":
            yield frame(6, handle)


def control_frames(messages: list[Message]) -> Iterator[bytes]:
    for message in messages:
        method = message.name.rpartition("/")[2]
        if message.direction == "<" and method in ("Attach", "Bulk"):
            for number, _, command in fields(message.data):
                # Not the first command: it begins another life.
                if number == 1 and isinstance(command, bytes) and command[:1] != b"\x0a":
                    yield frame(0, cut(command))
        elif message.direction == ">" and method == "Push":
            yield frame(1, cut(message.data))


def compile_results(messages: list[Message]) -> Iterator[bytes]:
    for message in messages:
        if message.direction != ">" or message.name.rpartition("/")[2] != "Attach":
            continue
        for _, _, event in fields(message.data):
            if not isinstance(event, bytes):
                continue
            for kind, _, reply in fields(event):
                if kind != 2 or not isinstance(reply, bytes):
                    continue
                for number, _, result in fields(reply):
                    if number == 3 and isinstance(result, bytes):
                        yield frame(6, cut(result))


def coordination_frames(messages: list[Message]) -> Iterator[bytes]:
    for message in messages:
        method = message.name.rpartition("/")[2]
        if message.direction == ">" and method in COORDINATION:
            yield frame(COORDINATION.index(method), cut(message.data))


def split(frames: list[bytes]) -> Iterator[bytes]:
    """Seeds of some dozen frames each; a small input teaches the fuzzer more than a large one."""
    seed, count = b"", 0
    for piece in frames:
        if count and (len(seed) + len(piece) > SEED_MAX or count >= FRAMES_MAX):
            yield seed
            seed, count = b"", 0
        seed, count = seed + piece, count + 1
    if seed:
        yield seed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", nargs="+", type=Path)
    parser.add_argument("--seeds", type=Path, required=True)
    parser.add_argument("--most", type=int, default=12, help="seeds a record and target")
    options = parser.parse_args()
    for path in options.records:
        messages = list(read(path))
        found = {
            "session": [*compile_results(messages), *session_frames(messages)],
            "host_buffer": list(host_buffer_frames(messages)),
            "control": list(control_frames(messages)),
            "coordination": list(coordination_frames(messages)),
        }
        for target, frames in found.items():
            folder = options.seeds / target
            folder.mkdir(parents=True, exist_ok=True)
            for seed in list(split(frames))[: options.most]:
                name = hashlib.sha256(seed).hexdigest()[:12]
                (folder / name).write_bytes(seed)
                print(f"{target}: {len(seed)} bytes from {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
