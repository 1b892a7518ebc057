"""Protocol buffers by hand, for the few messages that are written or looked into here."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """Negative numbers as int32 and int64 fields have them."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def content(field: int, value: bytes) -> bytes:
    """A field of bytes, text, or a message."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def contents(message: bytes, wanted: int) -> list[bytes]:
    """What every length-delimited field with the number `wanted` holds."""
    found, at = [], 0
    while at < len(message):
        tag, at = read_varint(message, at)
        if tag & 7 == 2:
            size, at = read_varint(message, at)
            if tag >> 3 == wanted:
                found.append(message[at : at + size])
            at += size
        elif tag & 7 == 0:
            _, at = read_varint(message, at)
        else:
            at += {1: 8, 5: 4}[tag & 7]
    return found
