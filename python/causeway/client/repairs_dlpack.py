"""DLPack with remote devices: through copies on this machine's CPU, since there is no other memory.

For the same reason remote arrays have no `__cuda_array_interface__`.
"""

from __future__ import annotations

import functools
from typing import Any

from causeway.client.repairs_common import is_remote, is_remote_array, local_cpu

_INSTALLED = "_causeway_dlpack"


def install() -> None:
    from jax._src import array

    kind = array.ArrayImpl
    export, device = kind.__dlpack__, kind.__dlpack_device__
    if hasattr(export, _INSTALLED):
        return

    @functools.wraps(export)
    def dlpack(
        self: Any,
        *,
        stream: Any = None,
        max_version: Any = None,
        dl_device: Any = None,
        copy: bool | None = None,
    ) -> Any:
        if not is_remote_array(self):
            return export(
                self, stream=stream, max_version=max_version, dl_device=dl_device, copy=copy
            )
        if copy is False:
            raise BufferError(
                "a remote array cannot be exported without a copy: its memory is not in this "
                "process; leave copy unset or set it to True"
            )
        host = _on_host(self)
        return export(host, stream=None, max_version=max_version, dl_device=dl_device, copy=None)

    @functools.wraps(device)
    def dlpack_device(self: Any) -> Any:
        if not is_remote_array(self):
            return device(self)
        from jax._src.dlpack import DLDeviceType

        return DLDeviceType.kDLCPU, 0

    setattr(dlpack, _INSTALLED, True)
    kind.__dlpack__ = dlpack
    kind.__dlpack_device__ = dlpack_device
    _import_through_host()
    _hide_cuda_interface(kind)


def _on_host(array: Any) -> Any:
    import jax

    return jax.device_put(array, local_cpu())


def _import_through_host() -> None:
    import jax
    from jaxlib import _jax

    original = _jax.dlpack_managed_tensor_to_buffer

    def dlpack_managed_tensor_to_buffer(
        tensor: Any, device: Any, stream: Any, copy: bool | None = None, *rest: Any
    ) -> Any:
        if not is_remote(device.client):
            return original(tensor, device, stream, copy, *rest)
        here = original(tensor, local_cpu(), None, copy, *rest)
        if copy is False:
            raise BufferError(
                f"a tensor cannot be imported to {device} without a copy: its memory is in this "
                "process, the device's is not; leave copy unset or set it to True"
            )
        return jax.device_put(here, device)

    _jax.dlpack_managed_tensor_to_buffer = dlpack_managed_tensor_to_buffer


def _hide_cuda_interface(kind: Any) -> None:
    """Libraries look with hasattr(), which only an AttributeError answers."""
    original = kind.__cuda_array_interface__

    def cuda_array_interface(self: Any) -> Any:
        if is_remote_array(self):
            raise AttributeError(
                "__cuda_array_interface__ is only defined for this process's GPU buffers. The "
                "memory of a remote array is elsewhere; np.asarray(x) copies it"
            )
        return original.__get__(self)

    kind.__cuda_array_interface__ = property(cuda_array_interface)
