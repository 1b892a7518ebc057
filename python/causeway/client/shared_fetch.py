"""np.asarray of a large remote array through shared memory, all its shards in one exchange.

The stock client copies what it reads several times, shard by shard, on one thread. Here the
workers write their shards into a file in memory that this process maps: a program of a kind of its
own (src/causeway/proxy/fetch_program.h) is run on the array, and its status says that all is there.
Where that does not work, reading goes on as the stock client does it, with one warning.
"""

from __future__ import annotations

import collections
import functools
import itertools
import json
import logging
import math
import mmap
import os
import threading
import weakref
from pathlib import Path
from typing import Any

from causeway.client import shared_memory

log = logging.getLogger("causeway.client")

# Below this, the exchange costs more than it saves.
MIN_BYTES = 1 << 20
# Files that no array needs any more and that the next read may use: their memory is there already.
SPARE_BYTES_MAX = 1 << 30
_numbers = itertools.count(1)


class _File:
    """A mapped file of this process's folder."""

    def __init__(self, folder: Path, size: int) -> None:
        self.path = folder / f"spare{next(_numbers)}"
        self.size = size
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # Only its length: the workers write all of it, which is faster into pages that do not
            # exist than into cleared ones, and tells them when there is no room.
            os.ftruncate(descriptor, size)
            self.memory = mmap.mmap(descriptor, size)
        except BaseException:
            self.path.unlink()
            raise
        finally:
            os.close(descriptor)

    def rename(self, path: Path) -> None:
        self.path.rename(path)
        self.path = path


class _Files:
    """Files to read into; thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._spare: list[_File] = []
        # A collection of garbage gives files back in the middle of anything: no lock there.
        self._returned: collections.deque[_File] = collections.deque()
        self.give_back = self._returned.append

    def take(self, size: int) -> _File:
        with self._lock:
            while self._returned:
                self._spare.append(self._returned.popleft())
            fits = [f for f in self._spare if size <= f.size <= 2 * size]
            best = min(fits, key=lambda f: f.size, default=None)
            if best is not None:
                self._spare.remove(best)
            while sum(f.size for f in self._spare) > SPARE_BYTES_MAX:
                self._spare.pop(0).path.unlink(missing_ok=True)
        return best or _File(self.folder, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)


class _Channel:
    """One compiled fetch program: executions are counted here as the head counts them."""

    def __init__(self, client: Any, device_ids: tuple[int, ...], path: Path) -> None:
        from jax.extend.ifrt_programs import ifrt_programs

        text = json.dumps({"causeway_fetch": {"path": str(path), "device_ids": list(device_ids)}})
        self._path = path
        self._runs = 0
        self._lock = threading.Lock()
        self._program = client.compile_ifrt_program(
            ifrt_programs.make_plugin_program(text), ifrt_programs.make_plugin_compile_options()
        )

    def start(self, array: Any, file: _File) -> Any:
        """A token that is ready once the array's bytes are in the file."""
        with self._lock:
            self._runs += 1
            file.rename(self._path.with_name(f"{self._path.name}{self._runs}"))
            results = self._program.execute_sharded([array], with_tokens=True)
        return results.consume_token()


class _Reader:
    """What one connection reads through."""

    def __init__(self, client: Any, files: _Files) -> None:
        self._client = client
        self._files = files
        self._lock = threading.Lock()
        self._channels: dict[tuple[int, ...], _Channel] = {}

    def read(self, array: Any) -> Any:
        import numpy as np

        file = self._files.take(array.nbytes)
        try:
            self._channel(array).start(array, file).block_until_ready()
            count = math.prod(array.shape)
            flat = np.frombuffer(file.memory, array.dtype, count)
        except BaseException:
            self._files.give_back(file)
            raise
        # Views of it keep it alive, and it keeps the file.
        weakref.finalize(flat, self._files.give_back, file)
        value = flat.reshape(array.shape)
        value.flags.writeable = False
        return value

    def _channel(self, array: Any) -> _Channel:
        devices = tuple(d.id for d in array.sharding._addressable_device_assignment)
        with self._lock:
            channel = self._channels.get(devices)
            if channel is None:
                path = self._files.folder / f"fetch{len(self._channels)}-{id(self._client):x}-"
                channel = _Channel(self._client, devices, path)
                self._channels[devices] = channel
            return channel


# Of the connection that was read from last: compiled programs keep a connection open, and one that
# JAX has dropped must not stay for us.
_latest: tuple[weakref.ref[Any], _Reader | None] | None = None
_lock = threading.Lock()


def install() -> None:
    from jax._src.array import ArrayImpl

    original = ArrayImpl._value
    if getattr(original.fget, "_causeway", False):
        return

    @functools.wraps(original.fget)
    def value(self: Any) -> Any:
        if self._npy_value is None and self.nbytes >= MIN_BYTES:
            found = _read(self)
            if found is not None:
                self._npy_value = found
                return found
        return original.fget(self)

    original_ahead = ArrayImpl.copy_to_host_async

    @functools.wraps(original_ahead)
    def copy_to_host_async(self: Any) -> None:
        # What the stock client fetches ahead, it would fetch for nothing: we read anew.
        if self.nbytes < MIN_BYTES or not _serves(self):
            original_ahead(self)

    value._causeway = True  # type: ignore[attr-defined]
    ArrayImpl._value = property(value)
    ArrayImpl.copy_to_host_async = copy_to_host_async


def _serves(array: Any) -> bool:
    from jax import dtypes

    client = next(iter(array.sharding.device_set)).client
    if not shared_memory.is_shared(client) or dtypes.issubdtype(array.dtype, dtypes.extended):
        return False
    known = _latest
    return known is None or known[0]() is not client or known[1] is not None


def _read(array: Any) -> Any:
    """The array's value, or None when the stock way must serve."""
    if not _serves(array):
        return None
    client = next(iter(array.sharding.device_set)).client
    array._check_if_deleted()
    global _latest
    with _lock:
        if _latest is None or _latest[0]() is not client:
            _latest = weakref.ref(client), _Reader(client, _Files(shared_memory.own_folder()))
        reader = _latest[1]
    if reader is None:
        return None
    try:
        return reader.read(array)
    except Exception as error:
        text = str(error)
        if "DATA_LOSS" in text or array.is_deleted():
            raise  # the array's own trouble, which the stock way would meet again
        with _lock:
            _latest = weakref.ref(client), None
        log.warning("large arrays are read over the connection from now on: %s", text)
        return None
