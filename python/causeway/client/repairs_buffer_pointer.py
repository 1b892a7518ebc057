"""`unsafe_buffer_pointer()` of remote arrays on CPU devices: where a copy lies in this process.

Such an array's memory is host memory, and so is its copy: whoever reads through the address sees
the value. The copy belongs to the array object and lives as long. Arrays that share memory on the
workers have copies of their own. Of a GPU's array the address would be in the wrong memory, so
there the stock client's refusal stays.
"""

from __future__ import annotations

from typing import Any

from causeway.client.repairs_common import is_remote_array

_INSTALLED = "_causeway_buffer_pointer"


def install() -> None:
    from jax._src import array

    kind = array.ArrayImpl
    original = kind.unsafe_buffer_pointer
    if hasattr(original, _INSTALLED):
        return

    def unsafe_buffer_pointer(self: Any) -> int:
        device, *more = self.sharding.device_set
        if more or not is_remote_array(self) or device.platform != "cpu":
            return original(self)
        return self._value.__array_interface__["data"][0]

    # functools.wraps does not take a method of nanobind's.
    unsafe_buffer_pointer.__doc__ = original.__doc__
    setattr(unsafe_buffer_pointer, _INSTALLED, True)
    kind.unsafe_buffer_pointer = unsafe_buffer_pointer
