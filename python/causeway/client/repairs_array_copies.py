"""NumPy arrays of up to 1 MiB are read before the call that was given them returns.

JAX hands NumPy arrays to its client as memory that nobody will change. On local devices they are
copied, or taken over as they are, by the time the call returns; the stock client reads them later,
on a thread of its own, and a program that fills the same array again would send the wrong values.
Larger arrays are left to it, since their copy would take longer than all the rest of the call; but
`jnp.array` promises a copy, whatever the size.

`device_put`, `jnp.asarray` and programs over several devices send arrays in Python, where they are
copied here. (The stock client would copy them if asked to, by IMMUTABLE_ONLY_DURING_CALL, but then
it breaks off where several shards share their memory.) Programs on one device send them in C++; but
an argument that wants a layout of its own is left to Python. So here NumPy arrays seem to want one:
in the C++ cache of calls, whose entries for them are others than those for arrays of JAX.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np

from causeway.client import repairs_common

_INSTALLED = "_causeway_array_copies"
BYTES_MAX = 1 << 20
_IN_PYTHON = object()  # stands for a layout
_call = threading.local()  # .numpy: whether each argument of the call that is cached next is one


def install() -> None:
    import jax
    from jax._src import pjit, stages
    from jax._src.interpreters import pxla
    from jax._src.numpy import array_constructors
    from jaxlib import xla_client

    if hasattr(pxla.shard_args, _INSTALLED):
        return
    array = array_constructors.array
    device_put, shard_args = xla_client.batched_device_put, pxla.shard_args
    jit_entry, aot_call = pjit._get_fastpath_data, stages.Compiled.call
    entry_type = pxla.MeshExecutableFastpathData

    @functools.wraps(device_put)
    def copying_device_put(
        aval: Any, sharding: Any, shards: Any, devices: Any, *rest: Any, **named: Any
    ) -> Any:
        if repairs_common.is_remote(devices[0].client):
            shards = _copies(shards)
        return device_put(aval, sharding, shards, devices, *rest, **named)

    @functools.wraps(shard_args)
    def shard_args_in_python(
        shardings: Any, layouts: Any, copy_semantics: Any, args: Any, *rest: Any, **named: Any
    ) -> Any:
        if len(layouts) == 1 and layouts[0] is _IN_PYTHON and _is_plain(args[0]):
            # What the rest would do, at a fifth of its price.
            (value,), (sharding,) = args, shardings
            aval = _aval(value.shape, value.dtype)
            devices = sharding._addressable_device_assignment
            return [copying_device_put(aval, sharding, args, devices, True)]
        layouts = [None if layout is _IN_PYTHON else layout for layout in layouts]
        return shard_args(shardings, layouts, copy_semantics, args, *rest, **named)

    @functools.wraps(jit_entry)
    def get_fastpath_data(
        executable: Any, out_tree: Any, args: Any, *rest: Any, **named: Any
    ) -> Any:
        _call.numpy = [isinstance(value, np.ndarray) for value in args]
        return jit_entry(executable, out_tree, args, *rest, **named)

    @functools.wraps(aot_call)
    def compiled_call(*args: Any, **named: Any) -> Any:
        result = aot_call(*args, **named)
        _call.numpy = [isinstance(value, np.ndarray) for value in result[2]]
        return result

    @functools.wraps(array)
    def copying_array(object: Any, *more: Any, **options: Any) -> Any:
        large = isinstance(object, np.ndarray) and object.nbytes > BYTES_MAX
        if large and options.get("copy", True):
            object = object.copy()
        return array(object, *more, **options)

    def fastpath_data(*fields: Any) -> Any:
        entry = entry_type(*fields)
        return _marked(entry, _call.__dict__.pop("numpy", []))

    setattr(shard_args_in_python, _INSTALLED, True)
    xla_client.batched_device_put = copying_device_put
    pxla.shard_args = shard_args_in_python
    pjit._get_fastpath_data = get_fastpath_data
    stages.Compiled.call = staticmethod(compiled_call)
    pxla.MeshExecutableFastpathData = fastpath_data
    array_constructors.array = jax.numpy.array = copying_array


def _copies(shards: Any) -> list[Any]:
    """The shards, with small NumPy arrays copied; those of the same memory share their copy."""
    made: dict[Any, Any] = {}
    result = []
    for shard in shards:
        value = getattr(shard, "val", shard)  # JAX before 0.9 wraps some (TypedNdArray)
        small = isinstance(value, np.ndarray) and value.nbytes <= BYTES_MAX
        if small and (value is shard or _is_plain(value)):
            key = (value.ctypes.data, value.shape, value.strides) if len(shards) > 1 else None
            if key not in made:
                made[key] = value.copy("K")
            shard = made[key]
        result.append(shard)
    return result


def _is_plain(value: Any) -> bool:
    """Whether JAX takes the type as it is, with 64-bit types on or off."""
    if not isinstance(value, np.ndarray):
        return False
    dtype = value.dtype
    return dtype.isbuiltin != 0 and (dtype.itemsize < 8 or dtype.char == "F")


@functools.lru_cache(4096)
def _aval(shape: tuple[int, ...], dtype: Any) -> Any:
    from jax._src import core

    return core.ShapedArray(shape, dtype)


def _marked(entry: Any, numpy: list[bool]) -> Any:
    """The cache's entry, which leaves NumPy arrays for a program on one device to Python."""
    devices = entry.xla_executable.local_devices()
    if not any(numpy) or len(devices) != 1 or not repairs_common.is_remote(devices[0].client):
        return entry
    kept = list(entry.kept_var_bitvec)
    # Constants come first. The cache takes NumPy's scalars for arrays without dimensions: where one
    # of them came first, such an array is still read later. Scalars cannot change, and are many.
    numpy = [False] * (len(kept) - len(numpy)) + numpy
    numpy = [is_one for is_one, is_kept in zip(numpy, kept, strict=True) if is_kept]
    layouts = [
        _IN_PYTHON if is_one and layout is None else layout
        for is_one, layout in zip(numpy, entry.in_device_local_layouts, strict=True)
    ]
    return entry._replace(in_device_local_layouts=layouts)
