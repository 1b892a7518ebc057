"""Arrays between hosts: copies, many small pieces, and changes of sharding."""

from __future__ import annotations

from typing import Any

from harness import comparison, limits, measure, systems
from harness.report import Report

TITLE = "worker to worker: two hosts, one device each"
_KIB, _MIB = 1 << 10, 1 << 20
_SIZES = (4 * _KIB, 256 * _KIB, _MIB, 32 * _MIB, 64 * _MIB, 256 * _MIB)
_QUICK_SIZES = (4 * _KIB, _MIB)
_PIECES, _PIECE_BYTES = 256, _KIB


def run(options: comparison.Options) -> Report:
    physical = limits.measure(options.quick)
    with (
        systems.causeway(slices=2) as cluster,
        systems.causeway(slices=2, shared_memory=False) as apart,
    ):
        results = comparison.interleave(
            "worker_transfer",
            [cluster, apart, systems.local(2)],
            {"quick": options.quick, "seconds": options.seconds},
            options,
        )
    report = Report("worker_transfer", TITLE, unit="us")
    for key in results[cluster.name][0]:
        report.compare(key, results, key)
    for size in _QUICK_SIZES if options.quick else _SIZES:
        limits_of_machine = report.rows[f"copy {_label(size)}"]
        limits_of_machine["memcpy"] = f"{size / physical['memcpy_gb_s'] / 1e3:,.0f}"
        limits_of_machine["raw TCP"] = (
            f"{size / physical['tcp_gb_s'] / 1e3 + physical['tcp_rtt_us'] / 2:,.0f}"
        )
    report.note(
        "Every operation is awaited. Hosts apart: the same cluster without shared memory, so that "
        "blocks cross TCP. Local JAX moves between two devices of one process, through "
        "one memory: it has no network to cross. memcpy and raw TCP: bytes over the rates of "
        "this run, and half a round trip."
    )
    return report


def client(config: dict[str, Any]) -> dict[str, Any]:
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    near, far = jax.devices()[:2]
    found: dict[str, Any] = {}

    def there(value, target) -> Any:
        return jax.block_until_ready(jax.device_put(value, target))

    for size in _QUICK_SIZES if config["quick"] else _SIZES:
        data = np.arange(size // 4, dtype=np.int32)
        array = there(data, near)
        least = 3 if size >= 16 * _MIB else 20
        found[f"copy {_label(size)}"] = measure.each(
            config, lambda array=array: there(array, far), config["seconds"], least
        )
        measure.check(bool((np.asarray(there(array, far)) == data).all()), _label(size))

    pieces = [
        there(np.full(_PIECE_BYTES // 4, index, np.int32), near) for index in range(_PIECES)
    ]
    found[f"{_PIECES} pieces of {_label(_PIECE_BYTES)}"] = measure.each(
        config, lambda: there(pieces, far), config["seconds"], 5
    )
    last = there(pieces, far)[-1]
    measure.check(int(np.asarray(last)[0]) == _PIECES - 1, "the last piece")

    mesh = Mesh(np.array([near, far]), ("hosts",))
    rows, columns = NamedSharding(mesh, P("hosts")), NamedSharding(mesh, P(None, "hosts"))
    side = 512 if config["quick"] else 2048
    matrix = np.arange(side * side, dtype=np.float32).reshape(side, side)
    by_rows = there(matrix, rows)
    found[f"rows to columns, {_label(matrix.nbytes)}"] = measure.each(
        config, lambda: there(by_rows, columns), config["seconds"], 5
    )
    measure.check(bool((np.asarray(there(by_rows, columns)) == matrix).all()), "columns")
    return found


def _label(size: int) -> str:
    return f"{size // _MIB} MiB" if size >= _MIB else f"{size // _KIB} KiB"
