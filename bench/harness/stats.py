"""Medians, tails and intervals; nothing here knows what was measured."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence

_RESAMPLES = 2000


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of them lie; the nearest rank, never interpolated."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def summary(values: Sequence[float]) -> dict[str, float]:
    """p50, p99, least, most and count of one process's samples."""
    return {
        "p50": statistics.median(values),
        "p99": percentile(values, 0.99),
        "min": min(values),
        "max": max(values),
        "n": len(values),
    }


def interval(
    values: Sequence[float],
    statistic: Callable[[Sequence[float]], float] = statistics.median,
    seed: int = 0,
) -> tuple[float, float]:
    """The bootstrap 95 % interval of a statistic; a single value is its own interval."""
    if len(values) < 2:
        return values[0], values[0]
    rng = random.Random(seed)
    found = sorted(
        statistic([rng.choice(values) for _ in values]) for _ in range(_RESAMPLES)
    )
    return found[int(0.025 * _RESAMPLES)], found[int(0.975 * _RESAMPLES) - 1]


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Median of ours/theirs over the pairs, and its 95 % interval."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True) if b]
    if not ratios:
        return float("nan"), float("nan"), float("nan")
    low, high = interval(ratios)
    return statistics.median(ratios), low, high
