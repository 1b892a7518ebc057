"""np.asarray of a remote array through shared memory, all its shards in one exchange.

The stock client copies what it reads several times, shard by shard, on one thread, and needs
several messages for it. Here the workers write their shards into a file in memory that this
process maps: a program of a kind of its own (src/causeway/proxy/fetch_program.h) is run on the
array, and its status says that all is there. Large arrays stay in the file, small ones are copied
out of it.
Where that does not work, reading goes on as the stock client does it, with one warning.
"""

from __future__ import annotations

import collections
import contextlib
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
from causeway.client.latest_connection import OfLatestConnection

log = logging.getLogger("causeway.client")

# Arrays below this are copied out, lest each keep a mapping of its own. All can use the same file.
SMALL_BYTES = 1 << 20
# So many small arrays are read ahead at most; others are when they are asked for.
AHEAD_MAX = 1 << 10
_AHEAD = "_causeway_ahead"
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
        self._small: list[_File] = []  # of SMALL_BYTES
        # A collection of garbage gives files back in the middle of anything: no lock there.
        self._returned: collections.deque[_File] = collections.deque()
        self.give_back = self._returned.append

    def take(self, size: int) -> _File:
        with self._lock:
            found = self._take_spare(size)
        if found is not None:
            return found
        return _File(self.folder, -(-max(size, SMALL_BYTES) // mmap.PAGESIZE) * mmap.PAGESIZE)

    def _take_spare(self, size: int) -> _File | None:
        while self._returned:
            file = self._returned.popleft()
            (self._small if file.size == SMALL_BYTES else self._spare).append(file)
        if size <= SMALL_BYTES:
            while len(self._small) > AHEAD_MAX:
                self._small.pop(0).path.unlink(missing_ok=True)
            # The latest: its memory is warm.
            return self._small.pop() if self._small else None
        fits = [f for f in self._spare if size <= f.size <= 2 * size]
        best = min(fits, key=lambda f: f.size, default=None)
        if best is not None:
            self._spare.remove(best)
        while sum(f.size for f in self._spare) > SPARE_BYTES_MAX:
            self._spare.pop(0).path.unlink(missing_ok=True)
        return best


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


class _Ahead:
    """A read that was begun before its value was asked for; the array holds it."""

    def __init__(self, file: _File, token: Any) -> None:
        self.file: _File | None = file
        self.token = token

    def __del__(self) -> None:
        # Never asked for: a worker may still write to the file, so nobody else may have it.
        if self.file is not None:
            self.file.path.unlink(missing_ok=True)


class _Reader:
    """What one connection reads through."""

    def __init__(self, client: Any, files: _Files) -> None:
        self._client = client
        self._files = files
        self._lock = threading.Lock()
        self._channels: dict[tuple[int, ...], _Channel] = {}
        self._ahead: weakref.WeakSet[_Ahead] = weakref.WeakSet()

    def read_ahead(self, array: Any) -> None:
        if _AHEAD not in array.__dict__ and len(self._ahead) < AHEAD_MAX:
            ahead = self._start(array)
            self._ahead.add(ahead)
            setattr(array, _AHEAD, ahead)

    def read(self, array: Any) -> Any:
        import numpy as np

        # Of several threads that ask for it, one gets it.
        begun = array.__dict__.pop(_AHEAD, None) or self._start(array)
        begun.token.block_until_ready()
        file, begun.file = begun.file, None
        flat = np.frombuffer(file.memory, array.dtype, math.prod(array.shape))
        if array.nbytes < SMALL_BYTES:
            flat = flat.copy()
            self._files.give_back(file)
        else:
            # Views of it keep it alive, and it keeps the file.
            weakref.finalize(flat, self._files.give_back, file)
        value = flat.reshape(array.shape)
        value.flags.writeable = False
        return value

    def _start(self, array: Any) -> _Ahead:
        file = self._files.take(array.nbytes)
        try:
            return _Ahead(file, self._channel(array).start(array, file))
        except BaseException:
            self._files.give_back(file)
            raise

    def _channel(self, array: Any) -> _Channel:
        devices = tuple(d.id for d in array.sharding._addressable_device_assignment)
        with self._lock:
            channel = self._channels.get(devices)
            if channel is None:
                path = self._files.folder / f"fetch{len(self._channels)}-{id(self._client):x}-"
                channel = _Channel(self._client, devices, path)
                self._channels[devices] = channel
            return channel


_readers = OfLatestConnection(
    lambda client: _Reader(client, _Files(shared_memory.own_folder()))
)


def install() -> None:
    from jax._src.array import ArrayImpl

    original = ArrayImpl._value
    if getattr(original.fget, "_causeway", False):
        return

    @functools.wraps(original.fget)
    def value(self: Any) -> Any:
        reader = _reader_of(self)
        if reader is None:
            return original.fget(self)
        try:
            self._npy_value = reader.read(self)
        except Exception as error:
            # The array's own trouble meets the stock way too, and is raised here.
            found = original.fget(self)
            if "DATA_LOSS" not in str(error):
                _stop(reader, error)
            return found
        return self._npy_value

    original_ahead = ArrayImpl.copy_to_host_async

    @functools.wraps(original_ahead)
    def copy_to_host_async(self: Any) -> None:
        reader = _reader_of(self)
        if reader is None:
            original_ahead(self)
            return
        self._check_if_deleted()
        # Large ones would need all their memory at once.
        if self.nbytes < SMALL_BYTES:
            with contextlib.suppress(Exception):  # its value, if asked for, meets the reason again
                reader.read_ahead(self)

    value._causeway = True  # type: ignore[attr-defined]
    ArrayImpl._value = property(value)
    ArrayImpl.copy_to_host_async = copy_to_host_async


def _reader_of(array: Any) -> _Reader | None:
    """None: the value is here already, or the stock way must serve."""
    from jax import dtypes

    if array._npy_value is not None:
        return None
    client = next(iter(array.sharding.device_set)).client
    if not shared_memory.is_shared(client) or array.nbytes == 0 or _guarded():
        return None
    # Keys are arrays of arrays; text has no fixed width.
    if dtypes.issubdtype(array.dtype, dtypes.extended) or array.dtype.kind in "OSTU":
        return None
    return _readers.of(client)


def _guarded() -> bool:
    """Whether jax.transfer_guard has something to say of a read: the stock way asks it."""
    from jax._src.lib import guard_lib

    level = guard_lib.thread_local_state().device_to_host
    if level is None:
        level = guard_lib.global_state().device_to_host
    return level not in (None, guard_lib.TransferGuardLevel.ALLOW)


def _stop(reader: _Reader, error: Exception) -> None:
    """It failed where the stock way did not."""
    if not _readers.stop(reader):
        return
    # Which a cluster of several machines is.
    expected = "shares no memory" in str(error)
    log.log(
        logging.INFO if expected else logging.WARNING,
        "arrays are read over the connection from now on: %s",
        error,
    )
