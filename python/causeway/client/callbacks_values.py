"""Operands and results of host callbacks: bytes as XLA stores them, to NumPy arrays and back."""

from __future__ import annotations

import functools
import struct
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

_TOKEN = 17

# XLA's numbers of element types, by the names of NumPy and ml_dtypes.
_NAMES = {
    1: "bool", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "uint8", 7: "uint16",
    8: "uint32", 9: "uint64", 10: "float16", 11: "float32", 12: "float64", 15: "complex64",
    16: "bfloat16", 18: "complex128", 19: "float8_e5m2", 20: "float8_e4m3fn", 21: "int4",
    22: "uint4", 23: "float8_e4m3b11fnuz", 24: "float8_e5m2fnuz", 25: "float8_e4m3fnuz",
    26: "int2", 27: "uint2", 28: "float8_e4m3", 29: "float8_e3m4", 30: "int1", 31: "uint1",
    32: "float4_e2m1fn", 33: "float8_e8m0fnu",
}  # fmt: skip

# Stored several to a byte, the first in the low bits; in NumPy each has a byte.
_PACKED_BITS = {
    "int1": 1, "uint1": 1, "int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "float4_e2m1fn": 4,
}  # fmt: skip
_SIGNED = ("int1", "int2", "int4")


@functools.cache
def _dtype(number: int) -> np.dtype[Any]:
    name = _NAMES.get(number)
    if name is None:
        raise TypeError(f"element type {number} of a host callback's operand is unknown here")
    return np.dtype(getattr(ml_dtypes, name, None) or name)


class Call(NamedTuple):
    group: int
    index: int
    device: int
    run: int
    shared: bool  # the run has this number on all workers
    operands: list[np.ndarray[Any, Any] | None]  # None: a token


_HEAD = struct.Struct("<QIiqII")
_OPERAND = struct.Struct("<IIQ")
ALIGNMENT = 64


def parse_call(message: memoryview) -> Call:
    """Arrays share the memory of `message`, which should begin at a multiple of ALIGNMENT."""
    group, index, device, run, count, shared = _HEAD.unpack_from(message)
    at = _HEAD.size
    described = []
    for _ in range(count):
        number, rank, size = _OPERAND.unpack_from(message, at)
        at += _OPERAND.size
        shape = struct.unpack_from(f"<{rank}q", message, at)
        at += 8 * rank
        described.append((number, shape, size))
    operands: list[np.ndarray[Any, Any] | None] = []
    for number, shape, size in described:
        at = (at + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        data = message[at : at + size]
        at += size
        operands.append(None if number == _TOKEN else _array(data, _dtype(number), shape))
    return Call(group, index, device, run, shared != 0, operands)


def _array(data: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    bits = _PACKED_BITS.get(dtype.name)
    if bits is not None:
        return _unpack(data, dtype, shape, bits)
    if not len(data):
        return np.zeros(shape, dtype)
    # Through bytes: not every ml_dtypes type speaks the buffer protocol.
    return np.frombuffer(data, np.uint8).view(dtype).reshape(shape)


def _unpack(
    data: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], bits: int
) -> np.ndarray[Any, Any]:
    count = int(np.prod(shape, dtype=np.int64))
    packed = np.frombuffer(data, np.uint8)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values = ((packed[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1)[:count]
    if dtype.name in _SIGNED:
        high = 8 - bits
        values = ((values << high).view(np.int8) >> high).view(np.uint8)
    return np.ascontiguousarray(values).view(dtype).reshape(shape)


def result_bytes(value: Any) -> memoryview:
    """What XLA wants for one result; nothing for a token (None)."""
    if value is None:
        return memoryview(b"")
    array = np.ascontiguousarray(value)
    flat = array.reshape(-1).view(np.uint8)
    bits = _PACKED_BITS.get(array.dtype.name)
    if bits is None:
        return memoryview(flat)
    per_byte = 8 // bits
    values = np.zeros(-(-flat.size // per_byte) * per_byte, np.uint8)
    values[: flat.size] = flat & ((1 << bits) - 1)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return memoryview(np.bitwise_or.reduce(values.reshape(-1, per_byte) << shifts, axis=1))
