"""What becomes of batch size and learning rate when the number of slices changes."""

from __future__ import annotations

import math
from typing import NamedTuple


class Scaled(NamedTuple):
    batch_size: int
    learning_rate: float


_RULES = ("linear", "sqrt", "none")


def scale(
    batch_size: int, learning_rate: float, active: int, total: int, rule: str = "linear"
) -> Scaled:
    """Batch size and learning rate on `active` of `total` slices, from those for all of them.

    The batch a slice stays what it was, so that memory and step time do; the learning rate follows
    the batch size: "linear" for SGD, "sqrt" for Adam and its kin, "none" leaves it alone. Throws
    ValueError when the batch does not divide among the slices.
    """
    if not 1 <= active <= total:
        raise ValueError(f"{active} active slices of {total}: it must be 1 to {total}")
    if rule not in _RULES:
        raise ValueError(f"rule {rule!r}: it must be one of {', '.join(_RULES)}")
    if batch_size % total:
        raise ValueError(
            f"a batch of {batch_size} does not divide among {total} slices: "
            f"use a multiple of {total}"
        )
    share = active / total
    factor = {"linear": share, "sqrt": math.sqrt(share), "none": 1.0}[rule]
    return Scaled(batch_size // total * active, learning_rate * factor)
