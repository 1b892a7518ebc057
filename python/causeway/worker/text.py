"""Arrays of text in their host form: one length-prefixed entry an element, row-major (IFRT's)."""

import numpy as np

from causeway.worker.protobuf import content, read_varint


def decode(block: memoryview | bytes, dims: tuple[int, ...]) -> np.ndarray:
    """An array of NumPy's text type."""
    data = bytes(block)
    texts = []
    at = 0
    while at < len(data):
        length, at = read_varint(data, at + 1)
        texts.append(data[at : at + length].decode("utf-8", "surrogateescape"))
        at += length
    return np.array(texts, np.dtypes.StringDType()).reshape(dims)


def encode(array: np.ndarray) -> bytes:
    texts = (text.encode("utf-8", "surrogateescape") for text in array.reshape(-1))
    return b"".join(content(1, text) for text in texts)
