"""DLPack of remote arrays: exports a copy on this machine's CPU, since there is no other memory."""

from __future__ import annotations

import functools
from typing import Any

from causeway.client.repairs_common import is_remote_array, local_cpu

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


def _on_host(array: Any) -> Any:
    import jax

    return jax.device_put(array, local_cpu())
