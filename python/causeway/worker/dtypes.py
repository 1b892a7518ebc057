"""Element types as the wire numbers them, and NumPy's for them."""

import functools

import ml_dtypes
import numpy as np

# XLA's PrimitiveType numbers, which the wire uses, by NumPy / ml_dtypes name.
NUMBERS = {
    "bool": 1,
    "int8": 2,
    "int16": 3,
    "int32": 4,
    "int64": 5,
    "uint8": 6,
    "uint16": 7,
    "uint32": 8,
    "uint64": 9,
    "float16": 10,
    "float32": 11,
    "float64": 12,
    "complex64": 15,
    "bfloat16": 16,
    "complex128": 18,
    "float8_e5m2": 19,
    "float8_e4m3fn": 20,
    "int4": 21,
    "uint4": 22,
    "float8_e4m3b11fnuz": 23,
    "float8_e5m2fnuz": 24,
    "float8_e4m3fnuz": 25,
    "int2": 26,
    "uint2": 27,
    "float8_e4m3": 28,
    "float8_e3m4": 29,
    "float4_e2m1fn": 30,
    "float8_e8m0fnu": 31,
    "int1": 32,
    "uint1": 33,
}

# Arrays of text are numbered by IFRT alone.
TEXT = 99


def _numpy_dtype(name: str) -> np.dtype:
    scalar = getattr(ml_dtypes, name, None)
    return np.dtype(name) if scalar is None else np.dtype(scalar)


def _known_dtypes() -> dict[int, np.dtype]:
    found = {}
    for name, number in NUMBERS.items():
        try:
            found[number] = _numpy_dtype(name)
        except TypeError:  # this ml_dtypes does not have it
            pass
    return found


_DTYPES = _known_dtypes()


@functools.cache
def number_of(dtype: np.dtype) -> int:
    """The wire's number, 0 when it has none. Kept, as a dtype spells its name anew every time."""
    return NUMBERS.get(dtype.name, 0)


def of(number: int) -> np.dtype:
    """NumPy's type; ValueError when there is none."""
    try:
        return _DTYPES[number]
    except KeyError:
        raise ValueError(
            f"element type {number} has no NumPy counterpart on this worker;"
            " upgrade ml_dtypes here or use another type"
        ) from None
