"""Elastic training with `causeway.elastic`: snapshots, salvage, events, shrinking and growing."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from end_to_end import ClientError

SETUP = """
from causeway import elastic
manager = elastic.Manager(snapshot_period=2, max_elastic_down_event_count=2)
def mesh_now(): return Mesh(np.array(manager.active_devices), ("data",))
step = jax.jit(lambda w, x: w + x.mean() * 0.5, donate_argnums=0)
def data(mesh): return jax.device_put(np.ones(24, np.float32), NamedSharding(mesh, P("data")))
def resume():
    mesh = mesh_now()
    at, state, where = manager.get_resharded_snapshot(mesh)
    return mesh, at, state, where
mesh = mesh_now()
big = np.arange(64 * 96, dtype=np.float32).reshape(64, 96)
state = {"w": jax.device_put(np.zeros(3, np.float32), NamedSharding(mesh, P())),
         "big": jax.device_put(big, NamedSharding(mesh, P()))}
"""


@pytest.fixture
def cluster(fresh: Callable[..., Any]) -> Any:
    return fresh(slices=3, hosts_per_slice=1, devices_per_host=2, announce_slices="true")


def _kill_in_a_loop(cluster: Any, client: Any, loop: str, victim: int) -> str:
    """The text of the error that the loop meets when the slice dies under it."""
    before = cluster.status()["counters"]["gang_launches_total"]
    client.begin(loop)
    cluster.wait_for("steps", lambda s: s["counters"]["gang_launches_total"] > before + 10)
    cluster.ask("kill", victim)
    client.finish(30.0)
    return str(client.do("result = str(failure)"))


LOOP = """
try:
    while True:
        state["w"] = step(state["w"], data(mesh)); state["w"].block_until_ready()
except jax.errors.JaxRuntimeError as error:
    failure = error
"""


def test_shrink_and_grow_from_snapshots_in_the_cluster(cluster: Any) -> None:
    client = cluster.client()
    client.do(SETUP)
    for _ in range(2):  # both sizes of mesh are compiled before anything fails
        client.do('state["w"] = step(state["w"], data(mesh)); state["w"].block_until_ready()')
    traffic = cluster.status()["counters"]
    client.do("manager.maybe_snapshot(2, state, {'epoch': 7}); jax.block_until_ready(state)")
    assert client.do("result = manager.maybe_snapshot(3, state)") is False
    # Copies that the following donations do not touch, in two slices, and no byte came here.
    assert client.do(
        "homes = {d.slice_index for d in manager._newest.arrays['big'].sharding.device_set};"
        "result = len(homes)"
    ) == 2
    after = cluster.status()["counters"]
    assert after["download_bytes_total"] == traffic["download_bytes_total"]
    assert after["upload_bytes_total"] == traffic["upload_bytes_total"]

    client.do("events = elastic.watch()")
    text = _kill_in_a_loop(cluster, client, LOOP, 1)
    assert re.search(r"DATA_LOSS: slice 1 lost: worker 1 \(pid \d+ on \S+\): "
                     r"killed by signal 9 \(SIGKILL\) at [\d:.]+; \d+ arrays affected", text), text
    before = cluster.status()["counters"]
    client.do("mesh, at, state, where = manager.maybe_reshard_down(failure, resume)")
    client.do("jax.block_until_ready(state)")
    after = cluster.status()["counters"]
    assert after["compiles_total"] == before["compiles_total"]
    assert after["download_bytes_total"] == before["download_bytes_total"]
    assert client.do("result = [at, where['epoch'], mesh.size]") == [2, 7, 4]
    assert client.do("result = np.asarray(state['w']).tolist()") == [1.0] * 3
    assert client.do("result = bool((np.asarray(state['big']) == big).all())")
    assert client.do("result = manager.scale_by_active_slices(24)") == 16
    client.do('state["w"] = step(state["w"], data(mesh))')
    assert client.do("result = np.asarray(state['w']).tolist()") == [1.5] * 3

    # Nothing to take back yet; then the slice returns and the state moves to it at this very step.
    assert client.do(
        "result = manager.maybe_reshard_up(3, resume, state, where) is None"
    )
    cluster.ask("restore", 1)
    cluster.wait_for("all workers", lambda s: s["complete"], 60.0)
    client.do("mesh, at, state, where = manager.maybe_reshard_up(4, resume, state, where)")
    assert client.do("result = [at, where['epoch'], mesh.size]") == [4, 7, 6]
    compiles = cluster.status()["counters"]["compiles_total"]
    client.do('state["w"] = step(state["w"], data(mesh))')
    assert client.do("result = np.asarray(state['w']).tolist()") == [2.0] * 3
    assert cluster.status()["counters"]["compiles_total"] == compiles
    assert client.do("result = [(e.kind, e.slice_index) for e in events.poll(5)]") == [
        ["lost", 1], ["back", 1],
    ]

    # The holder of one copy dies, then the holder of what was restored from: the limit is two.
    _kill_in_a_loop(cluster, client, LOOP, 0)
    client.do("mesh, at, state, where = manager.maybe_reshard_down(failure, resume)")
    assert client.do("result = at") == 4
    assert client.do("result = bool((np.asarray(state['big']) == big).all())")
    _kill_in_a_loop(cluster, client, LOOP, 2)
    with pytest.raises(ClientError, match="max_elastic_down_event_count"):
        client.do("manager.maybe_reshard_down(failure, resume)")


def test_salvage_says_what_is_left(cluster: Any) -> None:
    client = cluster.client()
    client.do(
        """
        from causeway import elastic
        values = np.arange(48, dtype=np.float32)
        grid = Mesh(np.array(devices).reshape(3, 2), ("replica", "model"))
        put = lambda s: jax.device_put(values, s)
        tree = {"everywhere": put(NamedSharding(mesh, P())), "cut": put(rows),
                "in each slice": put(NamedSharding(grid, P("model"))),
                "elsewhere": put(devices[0]), "there": put(devices[2])}
        jax.block_until_ready(tree)
        """
    )
    assert client.do("result = elastic.salvage(tree).complete")
    cluster.ask("kill", 1)
    cluster.wait_for("the death", lambda s: not s["workers"][1]["alive"])
    before = cluster.status()["counters"]["download_bytes_total"]
    client.do("found = elastic.salvage(tree)")
    assert cluster.status()["counters"]["download_bytes_total"] == before
    assert sorted(client.do("result = found.lost")) == ["['cut']", "['there']"]
    assert client.do("result = found.tree['cut'] is None and found.tree['there'] is None")
    assert client.do(
        """
        left = {k: v for k, v in found.tree.items() if v is not None}
        result = {k: [v.sharding.num_devices, bool((np.asarray(v) == values).all())]
                  for k, v in left.items()}
        """
    ) == {"everywhere": [4, True], "in each slice": [4, True], "elsewhere": [1, True]}
    # What is whole again computes, and moves: also back onto the slice when it has returned.
    assert client.do("result = float((found.tree['in each slice'] + 1).sum())") == 1176.0
    cluster.ask("restore", 1)
    cluster.wait_for("all workers", lambda s: s["complete"], 60.0)
    client.do("moved = elastic.salvage({'a': tree['in each slice']}, rows).tree['a']")
    assert client.do("result = [moved.sharding.num_devices, float((moved + 1).sum())]") == [
        6, 1176.0,
    ]


def test_the_decorator_runs_the_function_again(cluster: Any) -> None:
    client = cluster.client()
    client.do(SETUP)
    client.begin(
        """
        seen = []
        @manager.elastic_retry(minimum_slice_count=2, timeout=60)
        def train():
            mesh = mesh_now()
            x = data(mesh)
            total = jax.device_put(np.zeros(3, np.float32), NamedSharding(mesh, P()))
            seen.append(manager.active_slice_count)
            steps = 0
            while len(seen) < 3 or steps < 5:
                total = step(total, x); total.block_until_ready(); steps += 1
                if manager.available_inactive_slices:
                    raise elastic.ScaleUpSignalError
            return np.asarray(total).tolist()
        result = train()
        """
    )
    before = cluster.status()["counters"]["gang_launches_total"]
    cluster.wait_for("steps", lambda s: s["counters"]["gang_launches_total"] > before + 10)
    cluster.ask("kill", 2)
    changed = cluster.wait_for("the loss", lambda s: s["counters"]["epoch_changes_total"] > 0)
    launched = changed["counters"]["gang_launches_total"]
    cluster.wait_for("steps", lambda s: s["counters"]["gang_launches_total"] > launched + 10)
    cluster.ask("restore", 2)
    assert client.finish(60.0) == [2.5] * 3
    assert client.do("result = seen") == [3, 2, 3]


def test_a_spare_takes_the_place_of_a_dead_worker(fresh: Callable[..., Any]) -> None:
    cluster = fresh(slices=2, hosts_per_slice=1, devices_per_host=2, announce_slices="true",
                    spares=1)
    client = cluster.client()
    client.do(SETUP)
    client.do('state["w"] = step(state["w"], data(mesh))')
    client.do("manager.maybe_snapshot(1, state, force=True)")
    before = cluster.pids()
    assert cluster.status()["gauges"]["spares"] == 1
    client.do("events = elastic.watch()")
    _kill_in_a_loop(cluster, client, LOOP, 1)
    compiles = cluster.status()["counters"]["compiles_total"]
    # All slices are there again by the time the program has its error.
    client.do("mesh, at, state, where = manager.maybe_reshard_down(failure, resume)")
    assert client.do("result = [at, mesh.size]") == [1, 4]
    client.do('state["w"] = step(state["w"], data(mesh))')
    assert client.do("result = np.asarray(state['w']).tolist()") == [1.0] * 3
    after = cluster.status()
    assert after["counters"]["compiles_total"] == compiles
    assert after["workers"][1]["pid"] == before["spare-0"]
    kinds = client.do("result = [(e.kind, e.slice_index) for e in events.poll(5)]")
    assert kinds[:2] == [["lost", 1], ["spare", 1]]
    # Started again, the dead one's process finds its place taken, and stands by.
    cluster.ask("restore", 1)
    cluster.wait_for("a spare again", lambda s: s["gauges"]["spares"] == 1, 60.0)
    assert cluster.status()["workers"][1]["pid"] == before["spare-0"]
    answer = cluster.ask("kill", 1)
    assert answer["pids"] == [before["spare-0"]]
    cluster.wait_for("the second change", lambda s: s["complete"] and
                     s["workers"][1]["pid"] == cluster.pids()["worker-1"], 60.0)


def test_a_snapshot_that_was_good_once_is_known_to_be_lost(cluster: Any) -> None:
    client = cluster.client()
    client.do(SETUP)
    client.do("manager.maybe_snapshot(1, state, force=True, block=True)")
    assert client.do("result = manager.get_resharded_snapshot(mesh)[0]") == 1
    for victim in range(3):
        cluster.ask("kill", victim)
    for victim in range(3):
        cluster.ask("restore", victim)
    cluster.wait_for("all back", lambda s: s["complete"], 60.0)
    with pytest.raises(ClientError, match="no snapshot is left in the cluster"):
        client.do("manager.get_resharded_snapshot(mesh)", 60.0)


def test_what_was_there_once_is_known_to_be_lost(cluster: Any) -> None:
    """Also a loss after the client has heard that an array is ready, and twice in a row."""
    client = cluster.client()
    client.do(SETUP)
    client.do(
        """
        from causeway.elastic import slices
        both = Mesh(np.array(devices).reshape(3, 2), ("copy", "part"))
        tree = {"copies": jax.device_put(big, NamedSharding(both, P(None, "part"))),
                "one": jax.device_put(big, devices[2]),
                "keys": jax.device_put(jax.random.key(3), devices[2])}
        def seen():
            jax.block_until_ready(tree)
            for shard in tree["copies"].addressable_shards: shard.data.block_until_ready()
            return sorted(elastic.salvage(tree).lost), [slices.answers(x) for x in tree.values()]
        def now():
            found = elastic.salvage(tree)
            left = {d.slice_index for d in found.tree["copies"].sharding.device_set}
            right = np.array_equal(np.asarray(found.tree["copies"]), big)
            return (sorted(found.lost), [slices.answers(x) for x in tree.values()], sorted(left),
                    bool(right))
        manager.maybe_snapshot(1, state, force=True, block=True)
        snapshot = manager._newest
        """
    )
    assert client.do("result = seen(), snapshot.complete()") == [[[], [True] * 3], True]
    compiles = cluster.status()["counters"]["compiles_total"]
    cluster.ask("kill", 1)
    lost = ["['keys']", "['one']"]
    assert client.do("result = now()") == [lost, [False] * 3, [0, 2], True]
    cluster.ask("kill", 0)
    assert client.do("result = now()") == [lost, [False] * 3, [2], True]
    assert cluster.status()["counters"]["compiles_total"] == compiles
    cluster.ask("kill", 2)
    assert client.do("result = snapshot.complete()") is False
    for victim in range(3):
        cluster.ask("restore", victim)
    cluster.wait_for("all back", lambda s: s["complete"], 60.0)
    assert client.do("result = snapshot.complete()") is False
    found = "result = sorted(elastic.salvage(tree).lost)"
    assert client.do(found) == ["['copies']", *lost]
