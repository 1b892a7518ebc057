"""Sorts the tests that differ by why they differ."""

from __future__ import annotations

import re

# (what the failure's message holds, the cause). The first that matches is taken.
_CAUSES: list[tuple[str, str]] = [
    (
        r"unsafe_buffer_pointer|unsafe_raw_buffer|PjRt-compatible backend only",
        "address of a device buffer in the client",
    ),
    (
        r"Only local arrays are supported|buffer protocol|a bytes-like object is required|"
        r"BufferError|__array_interface__|"
        r"memoryview|PyClient::BufferProtocol",
        "buffer protocol on device memory",
    ),
    (r"dlpack", "dlpack"),
    (r"took longer than|hung or died|Timeout", "hang, crash or time limit"),
    (r"Connection to IFRT proxy server was terminated", "connection lost"),
    (r"DATA_LOSS", "a worker was lost"),
    (r"Negative or zero strides", "NumPy input with odd strides"),
    (r"host callback|Unsupported host callback|callback", "host callbacks"),
    (r"Unknown backend|Platforms present are", "needs a backend of another name"),
    (r"memory_stats|MemoryStats", "memory_stats"),
    (r"is_deleted|has been deleted|deleted|[Dd]onat", "donation and deletion"),
    (r"serializ|persistent|compilation cache", "serialised executables"),
    (r"hlo_modules|cost_analysis|memory_analysis", "facts of a compiled program"),
    (r"live_executables|live_arrays|live_buffers", "live object lists of the client"),
    (
        r"custom_partitioning|CustomSPMD|InspectSharding|inspect_array_sharding",
        "Python inside the partitioner",
    ),
    (r"FFI|custom.call", "custom calls"),
    (r"UNIMPLEMENTED", "UNIMPLEMENTED"),
    (r"INTERNAL", "INTERNAL"),
    (r"INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    (r"RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"),
    (r"Not equal to tolerance|Arrays are not (almost )?equal|mismatch", "WRONG VALUES"),
]


def cause(reason: str, message: str, test: str) -> str:
    """The reason says most; a bare assertion says nothing, then the test's own name may."""
    for text in (reason, message, test):
        for pattern, name in _CAUSES:
            if re.search(pattern, text):
                return name
    return "other"
