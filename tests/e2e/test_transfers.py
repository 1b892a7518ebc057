"""Arrays on their way: right bytes by every path, the path that was meant, small faults."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from end_to_end import ClientError, Cluster

MOVE = """
big = np.arange(6 << 18, dtype=np.float32).reshape(-1, 256)
x = jax.device_put(big, devices[0])
y = jax.device_put(x, devices[-1])
there = jax.device_put([x + i for i in range(3)], devices[-1])
again = [jax.device_put(v, devices[0]) for v in there]
z = jax.device_put(jax.device_put(big, rows), NamedSharding(mesh, P(None, "x")))
bump = jax.jit(lambda v: v + 1, donate_argnums=0)
taken = jax.device_put(x + 0, devices[0])
taken.block_until_ready()
before = jax.device_put(taken, devices[-1])
for _ in range(3):
    taken = bump(taken)
small = [jax.device_put(np.full(64, i, np.int32), devices[0]) for i in range(100)]
moved = jax.device_put(small, devices[-1])
result = [
    bool((np.asarray(y) == big).all()),
    all(bool((np.asarray(v) == big + i).all()) for i, v in enumerate(again)),
    bool((np.asarray(z) == big).all()),
    bool((np.asarray(before) == big).all()) and bool((np.asarray(taken) == big + 3).all()),
    [int(v[0]) for v in moved] == list(range(100)),
]
"""


def _paths(cluster: Cluster) -> dict[str, int]:
    """The workers' counters added up, once they have reported what happened before this call."""
    totals: dict[str, int] = {}
    for worker in cluster.status()["workers"]:
        for name, value in worker["transfers"].items():
            totals[name] = totals.get(name, 0) + value
    return totals


def _await_paths(cluster: Cluster, name: str, least: int) -> dict[str, int]:
    deadline = time.monotonic() + 30
    while True:
        found = _paths(cluster)
        if found.get(name, 0) >= least or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


@pytest.mark.timeout_seconds(180)
def test_large_arrays_take_shared_memory(start_cluster: Callable[..., Cluster]) -> None:
    cluster = start_cluster(slices=2, devices_per_host=1)
    client = cluster.client()
    assert client.do(MOVE) == [True] * 5
    size = 6 << 20
    _await_paths(cluster, "push_shared_memory_bytes", 8 * size)
    found = _await_paths(cluster, "download_shared_memory_bytes", 6 * size)
    # y, 3 there, 3 back, one before it is donated; z is resharded by a program.
    assert found["push_shared_memory_bytes"] >= 8 * size
    assert found["upload_shared_memory_bytes"] >= 2 * size
    assert found["download_shared_memory_bytes"] >= 6 * size
    assert found.get("push_fallbacks", 0) == found.get("push_retries", 0) == 0
    # Reading the same shape again uses memory that is mapped already, and values stay apart.
    same = """
    first = np.asarray(x + 1)
    second = np.asarray(x + 2)
    part = first[3:5]
    del first
    third = np.asarray(x + 3)
    result = [float(part[0, 0]), float(second[0, 1]), float(third[0, 2]), second.flags.writeable]
    """
    assert client.do(same) == [3 * 256 + 1, 3.0, 5.0, False]
    # Many arrays to one device are one request, and none puts the results together.
    asked = cluster.requests()
    again = """
    moved = jax.block_until_ready(jax.device_put(small, devices[-1]))
    result = [int(np.asarray(v)[3]) for v in moved] == list(range(100))
    """
    assert client.do(again) is True
    now = cluster.requests()
    assert now["copy_arrays"] - asked["copy_arrays"] == 1
    assembled = "assemble_array_from_single_device_arrays"
    assert now.get(assembled, 0) == asked.get(assembled, 0)
    # Without our package everything goes over the network, and is right all the same.
    without = "-shared-memory,-shared-fetch,-batched-copies"
    stock = cluster.client(env={"CAUSEWAY_CLIENT_PATCHES": without})
    assert stock.do(MOVE) == [True] * 5
    cluster.close()


READS = """
import math
kinds = ["bool", "int4", "uint2", "int8", "uint16", "int32", "float16", "bfloat16", "float32",
         "complex64", "float8_e4m3fn"]
wrong = []
for kind in kinds:
    for shape in [(), (1,), (8, 3), (4, 2048), (0, 8)]:
        value = (np.arange(math.prod(shape)) % 2).reshape(shape).astype(jnp.dtype(kind))
        layout = rows if shape and shape[0] % len(devices) == 0 else NamedSharding(mesh, P())
        for array in (jax.device_put(value, devices[-1]), jax.device_put(value, layout)):
            read = np.asarray(array)
            if (read.dtype, read.shape, read.flags.writeable, read.tobytes()) != (
                value.dtype, shape, False, value.tobytes()):
                wrong.append((kind, shape, str(read)))
result = wrong
"""


@pytest.mark.timeout_seconds(180)
def test_arrays_of_any_size_are_read_through_shared_memory(shared: Cluster) -> None:
    client = shared.client()
    assert client.do(READS) == []
    asked = shared.requests()
    # Many at once are begun together, each with a file of its own, and what is never asked for
    # leaves none behind.
    many = """
    from causeway.client import shared_memory
    values = [jax.device_put(np.full(16, n), devices[n % len(devices)]) for n in range(1500)]
    for value in values:
        value.copy_to_host_async()
    result = [int(v[3]) for v in jax.device_get(values[:1400])] == list(range(1400))
    import gc
    del values, value
    gc.collect()
    result = result, len(list(shared_memory.own_folder().iterdir()))
    """
    right, files = client.do(many)
    assert right
    assert files <= 1024
    assert shared.requests()["copy_to_host_buffer"] == asked["copy_to_host_buffer"]
    # The array's own trouble is nobody else's: JAX's own words, and reading goes on as before.
    trouble = """
    x = jax.device_put(np.arange(4.0), devices[0])
    taken = jax.jit(lambda v: v + 1, donate_argnums=0)(x)
    text = []
    for act in (lambda: np.asarray(x), x.copy_to_host_async):
        try:
            act()
        except RuntimeError as error:
            text.append("deleted" in str(error))
    with jax.transfer_guard_device_to_host("disallow"):
        try:
            np.asarray(taken)
        except Exception as error:
            text.append("isallowed" in str(error))
    result = text, np.asarray(taken).tolist()
    """
    assert client.do(trouble) == [[True] * 3, [1.0, 2.0, 3.0, 4.0]]


RESHARD = """
grid = Mesh(np.array(devices).reshape(2, 2), ("a", "b"))
pair = Mesh(np.array(devices[1:3]), ("a",))
kinds = [NamedSharding(grid, P("a", "b")), NamedSharding(grid, P(("a", "b"))),
         NamedSharding(grid, P(None, ("b", "a"))), NamedSharding(grid, P("b")),
         NamedSharding(grid, P()), NamedSharding(pair, P(None, "a"))]
good = []
for number in (np.float32, np.int8, np.complex64):
    value = np.arange(512 * 512).reshape(512, 512).astype(number)
    for start in kinds:
        x = jax.block_until_ready(jax.device_put(value, start))
        moved = [jax.device_put(x, kind) for kind in kinds] + [jax.device_put(x, kinds[0])]
        good += [y.sharding == k for y, k in zip(moved, kinds)]
        good += [bool((np.asarray(y) == value).all()) for y in moved]
result = [len(good), all(good)]
"""


@pytest.mark.timeout_seconds(180)
def test_a_change_of_sharding_stays_between_the_workers(
    start_cluster: Callable[..., Cluster],
) -> None:
    cluster = start_cluster(slices=2, devices_per_host=2)
    client = cluster.client()
    assert client.do("x = 0;" + RESHARD) == [3 * 6 * 13, True]
    client.do("""
    big = np.arange(1 << 20, dtype=np.float32).reshape(1024, 1024)
    x = jax.block_until_ready(jax.device_put(big, kinds[0]))
    y = jax.block_until_ready(jax.device_put(x, kinds[1]))  # compiles
    """)
    asked, moved = cluster.requests(), _paths(cluster)
    client.do("moved = [jax.block_until_ready(jax.device_put(x, kinds[1])) for _ in range(3)]")
    now = cluster.requests()
    assert now["loaded_executable_execute"] - asked["loaded_executable_execute"] == 3
    grown = {kind for kind, count in now.items() if count > asked.get(kind, 0)}
    assert not {k for k in grown if k.startswith(("make_array", "copy_", "compile"))}, grown
    assert _paths(cluster).get("download_shared_memory_bytes", 0) == moved.get(
        "download_shared_memory_bytes", 0
    )
    assert client.do("result = all((np.asarray(m) == big).all() for m in moved)") is True
    # Small arrays, and all without our package, take JAX's way.
    stock = cluster.client(env={"CAUSEWAY_CLIENT_PATCHES": "-reshards"})
    assert stock.do("x = 0;" + RESHARD) == [3 * 6 * 13, True]
    # What is lost is said to be.
    cluster.ask("kill", 1)
    with pytest.raises(ClientError, match="DATA_LOSS"):
        client.do("result = float(np.asarray(jax.device_put(x, kinds[2]))[0, 0])")
    cluster.close()


CONNECTIONS = """
import os, pathlib
from urllib.parse import urlsplit
ours = {os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if
        os.path.islink(f"/proc/self/fd/{n}")}
port = f":{urlsplit(os.environ['JAX_BACKEND_TARGET']).port:04X}"
rows = [line.split() for version in ("tcp", "tcp6")
        for line in pathlib.Path(f"/proc/self/net/{version}").read_text().splitlines()[1:]]
result = sum(row[2].endswith(port) and f"socket:[{row[9]}]" in ours for row in rows)
"""


def test_a_head_on_this_machine_is_reached_without_tcp(shared: Any) -> None:
    assert shared.client().do(CONNECTIONS) == 0
    stock = shared.client(env={"CAUSEWAY_CLIENT_PATCHES": "-local-socket"})
    assert stock.do(CONNECTIONS) >= 1


WORK = "result = float(jax.jit(jnp.sum)(jax.device_put(np.ones((4, 1 << 20)), rows)))"


def _await_ways(cluster: Cluster, wanted: list[tuple[int, int]]) -> list[str]:
    """Each worker's connections to the head, by socket and over TCP, are these; why TCP was taken.

    Workers say so with their answers to heartbeats.
    """
    deadline = time.monotonic() + 30
    while True:
        workers = cluster.status()["workers"]
        counts = [w["transfers"].get for w in workers]
        found = [(c("head_connections_unix", 0), c("head_connections_tcp", 0)) for c in counts]
        if found == wanted or time.monotonic() > deadline:
            assert found == wanted
            return [worker["transfer_fallback"] for worker in workers]
        time.sleep(0.1)


@pytest.mark.timeout_seconds(180)
def test_workers_of_the_heads_machine_reach_it_without_tcp(
    start_cluster: Callable[..., Cluster],
) -> None:
    from causeway.client import shared_memory

    cluster = start_cluster(slices=2, devices_per_host=2, head_flags=("--heartbeat=1s",))
    assert cluster.client().do(WORK) == 4 << 20
    assert _await_ways(cluster, [(2, 0)] * 2) == ["", ""]
    # A name that leads nowhere, as in a container, costs a newcomer nothing else.
    folder = shared_memory.folder_of_head(cluster.env["JAX_BACKEND_TARGET"])
    assert folder is not None
    (folder / "workers").unlink()
    cluster.ask("kill", 1)
    cluster.wait_for("the loss", lambda s: not s["complete"])
    cluster.ask("restore", 1)
    cluster.wait_for("the newcomer", lambda s: s["complete"], 60.0)
    stays, comes = _await_ways(cluster, [(2, 0), (0, 2)])
    assert stays == ""
    assert comes.endswith("/workers: No such file or directory")
    metric = 'causeway_worker_head_connections_tcp_total{worker="1",slice="1"}'
    assert cluster.metrics()[metric] == 2
    assert cluster.client().do(WORK) == 4 << 20
    cluster.close()


@pytest.mark.timeout_seconds(180)
def test_the_heads_socket_may_be_switched_off(
    start_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAUSEWAY_LOCAL_SOCKET", "off")
    cluster = start_cluster(slices=2, devices_per_host=2, head_flags=("--heartbeat=1s",))
    assert cluster.client().do(WORK) == 4 << 20
    off = "CAUSEWAY_LOCAL_SOCKET=off switches Unix sockets off"
    assert _await_ways(cluster, [(0, 2)] * 2) == [off, off]
    cluster.close()


@pytest.mark.timeout_seconds(180)
def test_hosts_apart_take_the_network(
    start_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAUSEWAY_SHARED_MEMORY", "off")
    cluster = start_cluster(slices=2, devices_per_host=1)
    assert cluster.client().do(MOVE) == [True] * 5
    size = 6 << 20
    found = _await_paths(cluster, "push_stream_bytes", 8 * size)
    assert found["push_stream_bytes"] >= 8 * size
    assert "push_shared_memory_bytes" not in found
    assert "upload_shared_memory_bytes" not in found
    # That the faster path is not taken is no secret.
    assert found["push_fallbacks"] >= 1
    assert found.get("push_retries", 0) == 0
    cluster.close()


@pytest.mark.timeout_seconds(180)
def test_damage_is_mended_once(start_cluster: Callable[..., Cluster]) -> None:
    cluster = start_cluster(slices=2, devices_per_host=1, faults={0: "damage_chunk=2"})
    assert cluster.client().do(MOVE) == [True] * 5
    found = _await_paths(cluster, "push_retries", 1)
    assert found["push_retries"] == 1
    assert found.get("push_failures", 0) == 0
    cluster.close()


@pytest.mark.timeout_seconds(180)
def test_a_source_that_dies_fails_its_transfers_only(
    start_cluster: Callable[..., Cluster],
) -> None:
    cluster = start_cluster(slices=3, devices_per_host=1)
    client = cluster.client()
    client.do("""
    a = jax.device_put(np.arange(4.0), devices[0])
    b = jax.device_put(np.arange(4.0), devices[2])
    result = float(np.asarray(a).sum() + np.asarray(b).sum())
    """)
    cluster.ask("kill", 0)
    with pytest.raises(ClientError, match="DATA_LOSS"):
        client.do("result = float(jax.device_put(a, devices[1])[0])")
    assert client.do("result = float(jax.device_put(b, devices[1])[3])") == 3.0
    cluster.close()


# How an array is given, and what it is: 200 times, and 20 times where it is large.
WAYS = {
    "device_put": ("lambda x: jax.device_put(x, jax.devices()[1])", "(64, n, np.float32)"),
    "a sharded device_put": ("lambda x: jax.device_put(x, rows)", "(64, n, np.float32)"),
    "jnp.asarray": ("jax.numpy.asarray", "(64, n, np.float32)"),
    "jnp.array": ("jax.numpy.array", "(64, n, np.float32)"),
    "jnp.array of 4 MiB": ("jax.numpy.array", "(1 << 20, n, np.float32)"),
    "an operation": ("lambda x: jax.numpy.negative(x) * -1", "(64, n, np.float32)"),
    "a program on one device": ("jax.jit(lambda x: x * 1)", "(64, n, np.float32)"),
    "the same, of 64 bits": ("jax.jit(lambda x: x * 1)", "(64, n, np.float64)"),
    "the same, of 1 MiB": ("jax.jit(lambda x: x * 1)", "(1 << 18, n, np.float32)"),
    "one of two arguments": (
        "lambda x, f=jax.jit(lambda a, b, c: b * c['w']): f(1.0, ones, {'w': x})",
        "(64, n, np.float32)",
    ),
    "a program on all": (
        "jax.jit(lambda x: x * 1, in_shardings=rows)",
        "(64, n, np.float32)",
    ),
    "a program compiled before": (
        "jax.jit(lambda x: x * 1).lower(np.ones(64, np.float32)).compile()",
        "(64, n, np.float32)",
    ),
}


def test_an_array_may_be_filled_again_at_once(shared: Cluster) -> None:
    client = shared.client()
    client.do("ones = jax.numpy.ones(64)")
    wrong = {}
    for way, (give, array) in WAYS.items():
        wrong[way] = client.do(
            f"""
            give = {give}
            result = 0
            for n in range({20 if "<<" in array else 200}):
                x = np.full{array}
                y = give(x)
                x[:] = -1
                result += int((np.asarray(y) != n).any())
            """
        )
    assert wrong == dict.fromkeys(WAYS, 0)
