"""Arrays between a client's memory and one device: device_put and np.asarray by size."""

from __future__ import annotations

from typing import Any

from harness import comparison, limits, measure, systems
from harness.report import Report

TITLE = "host transfer: one array, one device"
_KIB, _MIB = 1 << 10, 1 << 20
_SIZES = (4 * _KIB, 64 * _KIB, _MIB, 16 * _MIB, 64 * _MIB, 256 * _MIB)
_QUICK_SIZES = (4 * _KIB, _MIB)


def run(options: comparison.Options) -> Report:
    physical = limits.measure(options.quick)
    with (
        systems.causeway() as cluster,
        systems.causeway(shared_memory=False) as apart,
        systems.null_server() as floor,
    ):
        results = comparison.interleave(
            "host_transfer",
            [cluster, apart, floor, systems.local()],
            {"quick": options.quick, "seconds": options.seconds},
            options,
        )
    report = Report("host_transfer", TITLE, unit="us")
    for key in results[cluster.name][0]:
        report.compare(key, results, key)
    for size in _QUICK_SIZES if options.quick else _SIZES:
        report.rows[f"put {_label(size)}"]["raw TCP"] = (
            f"{size / physical['tcp_gb_s'] / 1e3 + physical['tcp_rtt_us'] / 2:,.0f}"
        )
    report.note(
        "Hosts apart: the same cluster without shared memory, so that bytes cross TCP. raw TCP: "
        "bytes over the loopback rate of this run, plus half a round trip. Local "
        "np.asarray copies nothing: it returns a view of the device's memory."
    )
    return report


def client(config: dict[str, Any]) -> dict[str, Any]:
    import jax
    import numpy as np

    device = jax.devices()[0]
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for size in _QUICK_SIZES if config["quick"] else _SIZES:
        data = rng.integers(0, 1 << 30, size // 4, dtype=np.int32)
        least = 3 if size >= 16 * _MIB else 20
        found[f"put {_label(size)}"] = measure.each(
            config,
            lambda data=data: jax.device_put(data, device).block_until_ready(),
            config["seconds"],
            least,
        )
        # A device's array remembers its host copy, so every read needs an array of its own.
        supply: list[Any] = []

        def read(data=data, supply=supply) -> Any:
            return np.asarray(supply.pop())

        times, cpu = [], 0.0
        for _ in range(max(least, 5)):
            array = jax.device_put(data, device)
            array.block_until_ready()
            supply.append(array)
            meter = measure.Meter(config)
            times.append(measure.once(read))
            cpu += meter.per(1)["cpu_us"]
        found[f"get {_label(size)}"] = {**measure.summary(times), "cpu_us": cpu / len(times)}
        supply.append(jax.device_put(data, device))
        if measure.computes(config):
            measure.check(bool((read() == data).all()), f"{_label(size)} read back")
    return found


def _label(size: int) -> str:
    return f"{size // _MIB} MiB" if size >= _MIB else f"{size // _KIB} KiB"
