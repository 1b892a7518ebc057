"""device_put of many single-device arrays to one device of the cluster: one request, not two each.

JAX gathers copies to a sharding and asks the client once for all of them. Copies to a plain Device
it asks for one by one, and puts each result together in a request of its own. Here they are
gathered as well: 256 arrays are 1 request instead of 512, and a single one is 1 instead of 2.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from causeway.client import repairs_common

_INSTALLED = "_causeway_batched_copies"


def install() -> None:
    from jax._src import dispatch
    from jax._src.array import ArrayImpl
    from jax.sharding import SingleDeviceSharding
    from jaxlib import xla_client

    original = dispatch._device_put_sharding_impl
    if hasattr(original, _INSTALLED):
        return
    fields = [field.name for field in dataclasses.fields(dispatch._DeferredShardArg)]
    if fields != ["x", "s", "aval", "committed", "copy_semantics"]:
        return  # a JAX that gathers in another way: nothing is lost but time

    @functools.wraps(original)
    def device_put(x: Any, aval: Any, device: Any, copy: Any) -> Any:
        if (
            type(device) is xla_client.Device
            and isinstance(x, ArrayImpl)
            and x.is_fully_addressable
            and x.sharding.num_devices == 1
            and repairs_common.is_remote(device.client)
        ):
            source = x.sharding._device_assignment[0]
            if source is not device and source.client is device.client:
                target = SingleDeviceSharding(device)
                return dispatch._DeferredShardArg(x, target, aval, True, copy)
        return original(x, aval, device, copy)

    setattr(device_put, _INSTALLED, True)
    dispatch._device_put_sharding_impl = device_put
