"""What going through a proxy costs one call: by arguments, by outputs, and by how it is awaited."""

from __future__ import annotations

from typing import Any

from harness import comparison, measure, systems
from harness.report import Report

TITLE = "proxy tax: one call of a jitted function on one device"
_SHAPES = ((1, 1), (10, 10), (100, 100), (500, 500), (1, 100))
_QUICK_SHAPES = ((1, 1), (10, 10), (1, 100))


def run(options: comparison.Options) -> Report:
    with systems.causeway() as cluster, systems.null_server() as floor:
        results = comparison.interleave(
            "proxy_tax",
            [cluster, floor, systems.local()],
            {"quick": options.quick, "seconds": options.seconds},
            options,
        )
    report = Report("proxy_tax", TITLE, unit="us")
    for key in results[cluster.name][0]:
        report.compare(key, results, key)
    report.note(
        "the null server computes nothing: what it takes is the stock client and gRPC. "
        "async: a chain of calls, awaited at its end; block: every call awaited."
    )
    return report


def client(config: dict[str, Any]) -> dict[str, Any]:
    import jax
    import numpy as np

    found: dict[str, Any] = {}
    device = jax.devices()[0]
    for arguments, outputs in _QUICK_SHAPES if config["quick"] else _SHAPES:
        step = jax.jit(_function(arguments, outputs))
        start = [jax.device_put(np.float32(0), device) for _ in range(arguments)]
        label = f"{arguments} -> {outputs}"
        state = {"values": start, "steps": 0}

        def issue(step=step, state=state, arguments=arguments) -> None:
            state["values"] = step(*state["values"][:arguments])
            state["steps"] += 1

        def wait(state=state) -> None:
            jax.block_until_ready(state["values"])

        # Long enough that waiting for each of the last results costs the chain little.
        size = 20 if config["quick"] else max(100, 400 // max(arguments, outputs))
        found[f"{label} async"] = measure.batches(config, issue, wait, size, config["seconds"])
        found[f"{label} block"] = measure.each(
            config, lambda issue=issue, wait=wait: (issue(), wait()), config["seconds"]
        )
        if arguments == outputs == 1:
            found["1 -> 1 float"] = measure.each(
                config,
                lambda issue=issue, state=state: (issue(), float(state["values"][0])),
                config["seconds"],
            )
        if measure.computes(config):
            # The first output of every function is its first argument plus one.
            value = float(state["values"][0])
            measure.check(value == state["steps"], f"{label}: {value} is not {state['steps']}")
    return found


def _function(arguments: int, outputs: int):
    """x + 1 for every argument, or x + 1 ... x + n of one; its name tells the null server n."""

    def function(*values):
        if len(values) == outputs:
            return tuple(value + 1 for value in values)
        return tuple(values[0] + 1 + index for index in range(outputs))

    function.__name__ = f"tax_outputs_{outputs}"
    return function
