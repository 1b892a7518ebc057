"""Arrays of text in their host form: one length-prefixed entry an element, row-major (IFRT's)."""

import numpy as np

_TAG = b"\x0a"  # field 1, bytes


def decode(block: memoryview | bytes, dims: tuple[int, ...]) -> np.ndarray:
    """An array of NumPy's text type."""
    data = bytes(block)
    texts = []
    at = 0
    while at < len(data):
        length, at = _varint(data, at + 1)
        texts.append(data[at : at + length].decode("utf-8", "surrogateescape"))
        at += length
    return np.array(texts, np.dtypes.StringDType()).reshape(dims)


def encode(array: np.ndarray) -> bytes:
    out = bytearray()
    for text in array.reshape(-1):
        data = text.encode("utf-8", "surrogateescape")
        out += _TAG
        length = len(data)
        while length >= 0x80:
            out.append(length & 0x7F | 0x80)
            length >>= 7
        out.append(length)
        out += data
    return bytes(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
