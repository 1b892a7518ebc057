"""Arrays to and from folders that all workers reach, one zarr array each: what Orbax reads too.

Every worker writes the parts that the plan gives it and reads those that it holds; nothing passes
through the head or the client. A plan comes from the head (EncodeFilePlan in
wire/plugin_program.h).
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from causeway.worker import dtypes, host_parts


def program(plan: dict[str, Any], worker: int, per_host: int) -> host_parts.Program:
    return _Writer(plan["items"]) if plan["op"] == "write" else _Reader(plan, worker, per_host)


def _kvstore(location: str, name: str) -> Any:
    path = f"{location.rstrip('/')}/{name}/"
    return path if "://" in path else {"driver": "file", "path": path}


def _domain(shard: dict[str, Any]) -> tuple[slice, ...]:
    return tuple(
        slice(int(a), int(a + n)) for a, n in zip(shard["start"], shard["dims"], strict=True)
    )


def _tensorstore() -> Any:
    try:
        import tensorstore  # pylint: disable=import-outside-toplevel
    except ImportError as error:
        raise ImportError("tensorstore; install it beside jax on every worker") from error
    return tensorstore


def _wait(future: Any, item: dict[str, Any], start: float) -> Any:
    timeout = item["timeout"]
    if not timeout:
        return future.result()
    try:
        return future.result(timeout=max(0.0, timeout - (time.monotonic() - start)))
    except TimeoutError:
        raise ValueError(
            f"{item['name']} in {item['location']} took longer than the {timeout} s that the"
            " request allows; give it more"
        ) from None


class _Writer:
    """Returns nothing; what it wrote is durable when run() returns."""

    def __init__(self, items: Sequence[dict[str, Any]]):
        self._items = items

    def close(self) -> None:
        pass

    def run(self, args: Sequence[Sequence[host_parts.Shard]]) -> list[list[host_parts.Part]]:
        start = time.monotonic()
        writes = [
            (item, self._write(item, shards, start))
            for item, shards in zip(self._items, args, strict=True)
        ]
        for item, futures in writes:
            for future in futures:
                _wait(future, item, start)
        return []

    @staticmethod
    def _write(item, shards, start):
        ts = _tensorstore()
        store = None
        futures = []
        for shard in shards:
            place = item["shards"][str(shard[0])]
            value = host_parts.view(shard)
            if list(value.shape) != [int(d) for d in place["dims"]]:
                raise ValueError(
                    f"{item['name']} is an array of another shape than the request says"
                )
            if store is None:
                opening = ts.open(
                    {"driver": "zarr", "kvstore": _kvstore(item["location"], item["name"])},
                    open=True,
                    create=True,
                    dtype=value.dtype,
                    shape=[int(d) for d in item["shape"]],
                    chunk_layout=ts.ChunkLayout(
                        chunk_shape=[max(1, int(d)) for d in item["chunk"]]
                    ),
                )
                store = _wait(opening, item, start)
            if place["first"]:
                futures.append(store[_domain(place)].write(value))
        return futures


class _Reader:
    """Returns one array an item: this worker's shards of it."""

    def __init__(self, plan: dict[str, Any], worker: int, per_host: int):
        self._items = plan["items"]
        self._worker = worker
        self._per_host = per_host

    def close(self) -> None:
        pass

    def run(self, args: Sequence[Sequence[host_parts.Shard]]) -> list[list[host_parts.Part]]:
        del args
        start = time.monotonic()
        reads = [(item, self._read(item, start)) for item in self._items]
        results = []
        for item, shards in reads:
            values = {key: _wait(future, item, start) for key, (_, future) in shards.items()}
            results.append(
                [
                    host_parts.part(device, values[key])
                    for key, (devices, _) in shards.items()
                    for device in devices
                ]
            )
        return results

    def _read(self, item, start):
        """By part: the local devices that hold it, and its future."""
        ts = _tensorstore()
        kvstore = _kvstore(item["location"], item["name"])
        store = _wait(ts.open({"driver": "zarr", "kvstore": kvstore}, open=True), item, start)
        want = np.dtype(dtypes.of(int(item["dtype"])))
        shape = [int(d) for d in item["shape"]]
        if list(store.shape) != shape or store.dtype.numpy_dtype != want:
            raise ValueError(
                f"{item['name']} in {item['location']} is {store.dtype.name}{list(store.shape)},"
                f" the request says {want}{shape}"
            )
        shards = {}
        for device, place in item["shards"].items():
            if int(device) // self._per_host != self._worker:
                continue
            key = tuple(place["start"])
            if key not in shards:
                shards[key] = ([], store[_domain(place)].read())
            shards[key][0].append(int(device))
        return shards
