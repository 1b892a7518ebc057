"""Dispatch of small gang programs: a scalar all-reduce and an addition over two hosts."""

from __future__ import annotations

from typing import Any

from harness import comparison, measure, systems
from harness.report import Report

TITLE = "dispatch: scalar all-reduce + add over two hosts, one device each"
HOSTS = 2
CHAIN = 128


def run(options: comparison.Options) -> Report:
    with systems.causeway(hosts_per_slice=HOSTS) as cluster:
        results = comparison.interleave(
            "dispatch",
            [cluster, systems.multi_controller(HOSTS), systems.local(HOSTS)],
            {"quick": options.quick, "seconds": options.seconds * 2},
            options,
        )
    report = Report("dispatch", TITLE, unit="us an operation")
    for key in results[cluster.name][0]:
        report.compare(key, results, key)
    report.note(
        f"async: {CHAIN} calls, each fed by the one before, awaited at their end; block: every "
        f"call awaited; fused: {CHAIN} operations in one program, a program's time / {CHAIN}. "
        "Local JAX is one process with two devices: no host is crossed. It is awaited every 8 "
        "calls, for its all-reduces can starve each other when many wait on few cores."
    )
    return report


def client(config: dict[str, Any]) -> dict[str, Any]:
    import jax
    import numpy as np
    from jax import lax
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    measure.join(config)
    mesh = Mesh(np.array(jax.devices()), ("hosts",))
    count = len(jax.devices())
    measure.check(count == HOSTS, f"{count} devices")
    sharding = NamedSharding(mesh, P("hosts"))

    def operation(x):
        # The mean over all hosts plus one: after n operations every element is n.
        return lax.psum(x, "hosts") / count + 1

    def on_every_host(body):
        return jax.jit(jax.shard_map(body, mesh=mesh, in_specs=P("hosts"), out_specs=P("hosts")))

    # The result of psum is the same everywhere, but a loop must carry one type.
    def fused_body(x):
        return lax.fori_loop(
            0, CHAIN, lambda _, y: lax.pcast(operation(y), "hosts", to="varying"), x
        )

    one = on_every_host(lambda x: lax.pcast(operation(x), "hosts", to="varying"))
    fused = on_every_host(fused_body)
    zeros = np.zeros((count,), np.float32)
    state = {
        "x": jax.make_array_from_callback((count,), sharding, lambda index: zeros[index]),
        "done": 0,
    }

    def issue(program=one, operations=1) -> None:
        state["x"] = program(state["x"])
        state["done"] += operations

    def wait() -> None:
        state["x"].block_until_ready()

    chain = 8 if config["clients"] == 1 and config["system"].startswith("local") else CHAIN
    seconds = config["seconds"]
    quick = config["quick"]
    found = {
        "async": measure.batches({**config, "rounds": 3 if quick else 30}, issue, wait, chain,
                                 seconds),
        "block": measure.each({**config, "rounds": 20 if quick else 1000},
                              lambda: (issue(), wait()), seconds),
    }
    whole = measure.each({**config, "rounds": 20 if quick else 100},
                         lambda: (issue(fused, CHAIN), wait()), seconds)
    found["fused"] = {
        key: value / CHAIN if key != "n" else value for key, value in whole.items()
    }
    mine = float(np.asarray(state["x"].addressable_shards[0].data)[0])
    measure.check(mine == state["done"], f"{mine} after {state['done']} operations")
    return found
