"""Runs the same client on several systems by turns, so that a slow minute hits all of them."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from harness import clients
from harness.systems import System


@dataclasses.dataclass(frozen=True)
class Options:
    """How long to measure. `quick` is a smoke test: it proves that a benchmark works."""

    quick: bool = False
    pairs: int = 15

    @property
    def rounds(self) -> int:
        return 1 if self.quick else self.pairs

    @property
    def seconds(self) -> float:
        """For one figure in one process."""
        return 0.05 if self.quick else 0.5


def interleave(
    case: str, measured: list[System], config: dict[str, Any], options: Options
) -> dict[str, list[dict[str, Any]]]:
    """By system: one result a round. Every other round goes through the systems backwards."""
    results: dict[str, list[dict[str, Any]]] = {system.name: [] for system in measured}
    for turn in range(options.rounds):
        for system in measured if turn % 2 == 0 else measured[::-1]:
            print(f"{case}: round {turn + 1}/{options.rounds}, {system.name}", file=sys.stderr)
            results[system.name].append(clients.run(case, system, config))
    return results
