"""device_put of a sharded array to another sharding of the cluster: from worker to worker.

JAX moves shards that are the same in both shardings. For any other change it reads the whole array
into this process and uploads it again. The cluster knows how to cut and move the parts themselves:
here it is asked to, by the program that pathwaysutils' reshard() sends too
(src/causeway/wire/plugin_program.h).
"""

from __future__ import annotations

import base64
import collections
import functools
import inspect
import json
import logging
import threading
from typing import Any

from causeway.client import repairs_common
from causeway.client.latest_connection import OfLatestConnection

log = logging.getLogger("causeway.client")

# Below this, the program costs more than the array's way through this process.
MIN_BYTES = 64 << 10
# Programs of a connection that are kept: one for each kind of array and pair of shardings.
PROGRAMS_MAX = 256
_INSTALLED = "_causeway_reshards"


class _Programs:
    """Of one connection; thread-safe. Those that were used last are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: collections.OrderedDict[Any, Any] = collections.OrderedDict()

    def get(self, array: Any, sharding: Any) -> Any:
        # The client remembers of a program what its results look like, so shape and type count too.
        key = (array.shape, array.dtype, array.sharding, sharding)
        with self._lock:
            program = self._known.get(key)
            if program is not None:
                self._known.move_to_end(key)
                return program
        program = _compile(array, sharding)
        with self._lock:
            self._known[key] = program
            while len(self._known) > PROGRAMS_MAX:
                self._known.popitem(last=False)
        return program


_programs = OfLatestConnection(lambda _: _Programs())


def install() -> None:
    from jax._src import array as jax_array

    original = jax_array.shard_sharded_device_array_slow_path
    if hasattr(original, _INSTALLED):
        return
    if list(inspect.signature(original).parameters) != ["x", "devices", "indices", "sharding"]:
        return  # a JAX that does it in another way: nothing is lost but time

    @functools.wraps(original)
    def reshard(x: Any, devices: Any, indices: Any, sharding: Any) -> Any:
        if _is_ours(x, sharding):
            moved = _reshard(x, sharding)
            if moved is not None:
                return moved
        return original(x, devices, indices, sharding)

    setattr(reshard, _INSTALLED, True)
    jax_array.shard_sharded_device_array_slow_path = reshard


def _is_ours(array: Any, sharding: Any) -> bool:
    from jax import dtypes

    if array.nbytes < MIN_BYTES or dtypes.issubdtype(array.dtype, dtypes.extended):
        return False
    client = _client(array.sharding)
    return (
        repairs_common.is_remote(client)
        and client is _client(sharding)
        and array.is_fully_addressable
        and sharding.is_fully_addressable
    )


def _client(sharding: Any) -> Any:
    return next(iter(sharding.device_set)).client


def _reshard(array: Any, sharding: Any) -> Any:
    """The array in its new sharding, or None when JAX's way must serve."""
    from jax.interpreters import pxla

    programs = _programs.of(_client(sharding))
    if programs is None:
        return None
    try:
        program = programs.get(array, sharding)
    except Exception as error:
        if "DATA_LOSS" in str(error):
            raise
        _programs.stop(programs)
        log.warning("changes of sharding pass through this process from now on: %s", error)
        return None
    handlers = pxla.global_avals_to_results_handler([array.aval], [sharding], True).handlers
    return program.execute_sharded([array]).consume_with_handlers(handlers)[0]


def _compile(array: Any, sharding: Any) -> Any:
    from jax.extend.ifrt_programs import ifrt_programs

    request = {
        "inSharding": [_wire_sharding(array.ndim, array.sharding)],
        "outSharding": [_wire_sharding(array.ndim, sharding)],
    }
    return _client(sharding).compile_ifrt_program(
        ifrt_programs.make_plugin_program(json.dumps({"reshardRequest": request})),
        ifrt_programs.make_plugin_compile_options(),
    )


def _wire_sharding(rank: int, sharding: Any) -> dict[str, Any]:
    proto = sharding._to_xla_hlo_sharding(rank).to_proto()
    wire: dict[str, Any] = {
        "devices": {"device_ids": [d.id for d in sharding._addressable_device_assignment]},
        "xla_hlo_sharding": base64.b64encode(proto.SerializeToString()).decode(),
    }
    if sharding.memory_kind is not None:
        wire["memory_kind"] = sharding.memory_kind
    return wire
