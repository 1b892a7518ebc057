"""Each test of the topic files passes locally and through a cluster, with equal values."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TOPICS = Path(__file__).resolve().parent / "topics"


def _tests() -> list[Any]:
    found = []
    for file in sorted(TOPICS.glob("*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                name = f"{file.stem}-{node.name.removeprefix('test_')}"
                found.append(pytest.param(file.stem, node.name, id=name))
    return found


@pytest.mark.timeout_seconds(400)  # the first one waits for both sides to run as a whole
@pytest.mark.parametrize("topic,function", _tests())
def test_same(topic: str, function: str, local_side: Any, cluster_side: Any) -> None:
    key = (topic, function)
    for name, side in (("locally", local_side), ("through the cluster", cluster_side)):
        if key not in side.tests:
            pytest.fail(f"did not run {name}; the end of its output:\n{side.outputs[topic]}")
        failed = [k for k, outcome in side.tests[key].outcomes.items() if outcome == "failed"]
        assert not failed, f"{failed} failed {name}:\n" + side.tests[key].texts[failed[0]]
    ours, theirs = cluster_side.tests[key], local_side.tests[key]
    assert ours.outcomes.keys() == theirs.outcomes.keys()
    for case, outcome in theirs.outcomes.items():
        if "skipped" in (outcome, ours.outcomes[case]):
            continue
        _compare(case, ours.values.get(case, {}), theirs.values.get(case, {}))
    if "passed" not in ours.outcomes.values():
        pytest.skip(next(iter(ours.texts.values())).strip().splitlines()[-1][:200])


def _compare(case: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys(), case
    for name, expected in theirs.items():
        got = ours[name]
        if expected[0] == "near":
            assert got[1] == expected[1], f"{case}, {name}: the dtype differs"
            np.testing.assert_allclose(got[2], expected[2], 1e-5, 1e-6, err_msg=f"{case}, {name}")
        else:
            assert got == expected, f"{case}, {name}: cluster gave {got}, local JAX {expected}"
