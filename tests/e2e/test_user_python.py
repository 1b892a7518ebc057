"""Processes that die while users' Python runs: in a worker, or in the client for a program."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end import ClientError

# `mark` tells the test that the function has begun; it goes on when the other file is there.
HELPERS = """
import pathlib, time
def wait_here(mark, gate):
    mark.touch()
    until = time.monotonic() + 60
    while not gate.exists() and time.monotonic() < until:
        time.sleep(0.01)
like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
half = [NamedSharding(Mesh(np.array(devices[2 * k:2 * k + 2]), "x"), P("x")) for k in range(2)]
total = jax.jit(lambda a: a + a.sum())
def check():
    x = jax.device_put(np.arange(8, dtype=np.float32), rows)
    return np.asarray(total(total(x))).tolist()
"""
CHECKED = [8 * 28.0 + 28.0 + 28.0 + n for n in range(8)]


@pytest.fixture
def cluster(fresh: Callable[..., Any]) -> Iterator[Any]:
    yield fresh(slices=2, hosts_per_slice=1, devices_per_host=2, announce_slices="true")


def _client(cluster: Any, folder: Path) -> Any:
    client = cluster.client()
    client.do(HELPERS)
    client.do(f"mark, gate = (pathlib.Path({str(folder)!r}) / name for name in ('mark', 'gate'))")
    assert client.do("result = check()") == CHECKED
    return client


def _wait_for(path: Path) -> None:
    until = time.monotonic() + 30.0
    while not path.exists():
        assert time.monotonic() < until, f"{path} never came"
        time.sleep(0.01)


def _lost_and_back(cluster: Any, client: Any) -> None:
    """The slice that was killed is restored, and the same session uses it again."""
    cluster.ask("restore", 1)
    cluster.wait_for("all back", lambda s: all(w["state"] == "alive" for w in s["workers"]))
    assert client.do("result = check()") == CHECKED


def test_a_worker_dies_while_colocated_python_runs_in_it(cluster: Any, tmp_path: Path) -> None:
    client = _client(cluster, tmp_path)
    client.do(
        """
        from jax.experimental import colocated_python
        @colocated_python.colocated_python
        def slow(x):
            import pathlib, time
            pathlib.Path(MARK).touch()
            time.sleep(60)
            return x
        @colocated_python.colocated_python
        def quick(x):
            return x + 1
        """.replace("MARK", repr(str(tmp_path / "mark")))
    )
    client.do("there = jax.device_put(np.ones(4, np.float32), half[1])")
    client.do("here = jax.device_put(np.ones(4, np.float32), half[0])")
    client.do("result = np.asarray(quick(there)).tolist()")
    client.begin("np.asarray(slow(there))")
    _wait_for(tmp_path / "mark")
    cluster.ask("kill", 1)
    with pytest.raises(ClientError, match="DATA_LOSS: slice 1 lost: worker 1"):
        client.finish(30.0)
    # The other worker's Python goes on.
    assert client.do("result = np.asarray(quick(here)).tolist()") == [2.0] * 4
    _lost_and_back(cluster, client)
    again = "result = np.asarray(quick(jax.device_put(np.ones(4, np.float32), half[1]))).tolist()"
    assert client.do(again) == [2.0] * 4


def test_a_worker_whose_python_is_held_is_not_taken_for_dead(fresh: Callable[..., Any]) -> None:
    """A user's function that keeps the interpreter to itself keeps no heartbeat from its answer."""
    cluster = fresh(slices=2, hosts_per_slice=1, devices_per_host=2, announce_slices="true",
                    head_flags=("--heartbeat=1s",))
    client = cluster.client()
    client.do(
        """
        from jax.experimental import colocated_python
        @colocated_python.colocated_python
        def hold(x):
            import ctypes
            ctypes.PyDLL(None).sleep(8)
            return x + 1
        there = jax.device_put(np.ones(2, np.float32), devices[2])
        """
    )
    assert client.do("result = np.asarray(hold(there)).tolist()") == [2.0] * 2
    assert cluster.status()["counters"]["workers_lost_total"] == 0


def test_a_worker_dies_while_it_waits_for_a_callback(cluster: Any, tmp_path: Path) -> None:
    client = _client(cluster, tmp_path)
    client.do(
        """
        @jax.jit
        def f(x):
            return jax.pure_callback(lambda x: (wait_here(mark, gate), x * 2)[1], like(x), x).sum()
        x = jax.device_put(np.ones(8, np.float32), rows)
        """
    )
    client.begin("np.asarray(f(x))")
    _wait_for(tmp_path / "mark")
    cluster.ask("kill", 1)
    with pytest.raises(ClientError, match="DATA_LOSS: slice 1 lost: worker 1"):
        client.finish(30.0)
    (tmp_path / "gate").touch()  # the answer finds nobody who wants it
    _lost_and_back(cluster, client)
    assert client.do(
        "result = float(f(jax.device_put(np.ones(8, np.float32), rows)))") == 16.0


def test_a_client_is_killed_in_a_callback_on_all_devices(cluster: Any, tmp_path: Path) -> None:
    client = _client(cluster, tmp_path)
    other = _client(cluster, tmp_path)
    client.do(
        """
        def on_each(x):
            x = jax.pure_callback(lambda x: (wait_here(mark, gate), x)[1], like(x), x)
            return lax.psum(x, "x")
        f = jax.jit(jax.shard_map(on_each, mesh=mesh, in_specs=P("x"), out_specs=P()))
        x = jax.device_put(np.ones(8, np.float32), rows)
        """
    )
    client.begin("np.asarray(f(x))")
    _wait_for(tmp_path / "mark")
    client.kill()
    # The launch that waited for it ends with an error, and nobody else hears of it.
    assert other.do("result = check()", 30.0) == CHECKED
    status = cluster.wait_for("its session ends", lambda s: len(s["sessions"]) == 1)
    assert all(worker["state"] == "alive" for worker in status["workers"])


HALF = """
@jax.jit
def f(x):
    return jax.pure_callback(WHAT, like(x), x).sum()
x = jax.device_put(np.ones(8, np.float32), rows)
"""


# No test of those with a callback that fails for one device alone waits for a heartbeat.
SELDOM = ("--heartbeat=100s",)


@pytest.fixture
def seldom(fresh: Callable[..., Any]) -> Iterator[Any]:
    yield fresh(slices=2, hosts_per_slice=1, devices_per_host=2, announce_slices="true",
                head_flags=SELDOM)


@pytest.mark.parametrize("where", ["all devices", "one host of two"])
def test_a_callback_that_fails_for_one_device_ends_the_launch_for_all(
    where: str, seldom: Any, tmp_path: Path
) -> None:
    client = _client(seldom, tmp_path)
    other = _client(seldom, tmp_path)
    # One device runs the callback; the others wait inside XLA, which tells them nothing.
    client.do(HALF.replace("WHAT", "lambda x: 1 / 0"))
    if where == "one host of two":
        client.do("x = jax.device_put(np.ones(8, np.float32), half[1])")
    client.begin("y = f(x); np.asarray(y + 1)")
    with pytest.raises(ClientError, match=r"(?s)INVALID_ARGUMENT: .*ZeroDivisionError"):
        client.finish(25.0)
    assert client.do("result = check()", 30.0) == CHECKED
    assert other.do("result = check()", 30.0) == CHECKED
    assert all(worker["state"] == "alive" for worker in seldom.status()["workers"])


@pytest.mark.parametrize("hosts", [1, 2])
def test_no_callback_sees_what_comes_of_a_failed_one(
    hosts: int, fresh: Callable[..., Any]
) -> None:
    """After the failure the launch goes on to its end, on all hosts, but calls nobody."""
    cluster = fresh(slices=hosts, hosts_per_slice=1, devices_per_host=4 // hosts,
                    announce_slices="true", head_flags=SELDOM)
    client = cluster.client()
    client.do(
        """
        seen = []
        like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
        def first(x):
            if fails and x[0] == 0: raise ValueError("one of four")
            return x
        def second(x):
            seen.append(float(x[0]))
            return x
        def on_each(x):
            x = lax.psum(jax.pure_callback(first, like(x), x), "x")
            return jax.pure_callback(second, like(x), x)
        def on_second(x):
            return jax.pure_callback(second, like(x), x)
        f = jax.jit(jax.shard_map(on_each, mesh=mesh, in_specs=P("x"), out_specs=P("x")))
        x = jax.device_put(np.arange(4, dtype=np.float32), rows)
        fails = True
        """
    )
    client.do("g = jax.jit(jax.shard_map(on_second, mesh=mesh, in_specs=P('x'), out_specs=P('x')))")
    client.begin("y = f(x); z = g(y); np.asarray(z)")
    with pytest.raises(ClientError, match=r"(?s)INVALID_ARGUMENT: .*one of four"):
        client.finish(25.0)
    assert client.do("fails = False; result = np.asarray(f(x)).tolist(), seen") == [
        [6.0] * 4, [6.0] * 4]
    assert cluster.status()["counters"]["workers_lost_total"] == 0


def test_a_client_is_killed_in_a_callback_for_one_device(seldom: Any, tmp_path: Path) -> None:
    client = _client(seldom, tmp_path)
    other = _client(seldom, tmp_path)
    client.do(HALF.replace("WHAT", "lambda x: (wait_here(mark, gate), x)[1]"))
    client.begin("np.asarray(f(x))")
    _wait_for(tmp_path / "mark")
    client.kill()
    # Its launch comes to its end with an error, and another's that is under way may go with it.
    try:
        other.do("result = check()", 25.0)
    except ClientError as error:
        assert "DATA_LOSS" not in str(error)
    assert other.do("result = check()", 25.0) == CHECKED
    assert all(worker["state"] == "alive" for worker in seldom.status()["workers"])


def test_a_callback_that_fails_for_one_device_of_the_only_host(
    fresh: Callable[..., Any], tmp_path: Path
) -> None:
    """What waits in the memory of one process cannot be broken off, and is not lost either."""
    cluster = fresh(slices=1, hosts_per_slice=1, devices_per_host=2, announce_slices="true",
                    head_flags=SELDOM)
    client = cluster.client()
    client.do(HELPERS.replace("for k in range(2)]", "for k in range(1)]"))
    client.do(HALF.replace("WHAT", "lambda x: 1 / 0"))
    client.do("kept = jax.device_put(np.arange(2, dtype=np.float32), rows)")
    client.begin("y = f(x); np.asarray(y + 1)")
    with pytest.raises(ClientError, match=r"(?s)INVALID_ARGUMENT: .*ZeroDivisionError"):
        client.finish(25.0)
    assert client.do("result = check(), np.asarray(kept).tolist()", 30.0) == [CHECKED, [0.0, 1.0]]
    assert cluster.status()["counters"]["workers_lost_total"] == 0
