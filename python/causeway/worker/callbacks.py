"""Host callbacks on a worker: which custom calls a program may have, and who serves them.

The handler is C++ (src/causeway/callbacks/handler.cc), in a shared library of its own that this
loads with ctypes; it calls no Python. Order: `start` when the relay's address is known, `register`
once XLA's client exists, `check_custom_calls` for each module before it is compiled.
"""

import ctypes
import functools
import pathlib
import threading

_LIBRARY = pathlib.Path(__file__).resolve().parent.parent / "_native" / "_callbacks.so"
_TYPE = "causeway.callbacks.Instance"

# jaxlib itself serves the names with "cpu" on the host, and its CUDA plugin those with "gpu"; XLA's
# partitioners know all four on any platform. So ours bear the names that are free.
_CLIENT_NAMES = ("xla_ffi_python_gpu_callback", "xla_ffi_partitioned_python_gpu_callback")
_IN_PROCESS_NAMES = (
    "xla_ffi_python_cpu_callback",
    "xla_ffi_partitioned_python_cpu_callback",
    "xla_python_cpu_callback",
    "xla_python_gpu_callback",
)

# Custom calls that carry addresses of the client's process.
_REFUSED = {
    "InspectSharding": "inspect_array_sharding needs Causeway's client package on the client",
    "CustomSPMDPartitioning": "custom_partitioning needs Causeway's client package on the client",
}
_REFUSED_PREFIXES = {
    "xla_buffer_python_": "it points into the memory of the client; use Causeway's client package",
}

# What XLA's own passes take out of a program or lower themselves. All others must be registered
# here: by jaxlib, one of its plugins, or a library that whoever runs the worker has loaded.
_COMPILER_NAMES = frozenset({
    "AllocateBuffer", "ApproxTopK", "CreateBuffer", "Eigh", "LayoutConstraint", "LuDecomposition",
    "MoveToDevice", "MoveToHost", "PartialReduce", "Pin", "PinToDevice",
    "ProductOfElementaryHouseholderReflectors", "Qr", "SPMDFullToShardShape",
    "SPMDShardToFullShape", "Sharding", "TopK", "Unpin", "annotate_device_placement",
    "control_dep", "ragged_all_to_all", "shape_assertion",
})  # fmt: skip
_COMPILER_PREFIXES = ("mhlo.", "stablehlo.", "chlo.", "xla.", "__cudnn$", "__gpu$", "__xla")

_lock = threading.Lock()
_registered = False


@functools.cache
def library():
    """The shared library. Raises OSError with its path when it is not built."""
    native = ctypes.CDLL(str(_LIBRARY))
    native.causeway_callbacks_type_id.restype = ctypes.c_void_p
    native.causeway_callbacks_type_info.restype = ctypes.c_void_p
    native.causeway_callbacks_start.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
    native.causeway_callbacks_start.restype = None
    native.causeway_callbacks_wait.argtypes = [ctypes.c_double]
    native.causeway_callbacks_owns.argtypes = [ctypes.c_int]
    return native


def start(address, worker, native=None):
    """Connects to the head's relay at HOST:PORT, in the background, for as long as we live."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"--callbacks={address!r} is not of the form HOST:PORT")
    native = native or library()
    native.causeway_callbacks_start(host.strip("[]").encode(), int(port), worker)


def register(native=None):
    """Makes the handler known to XLA on the host platform. Only after the CPU client was made.

    Calling it again, as for another epoch's client, does nothing.
    """
    global _registered
    from jaxlib import xla_client  # pylint: disable=import-outside-toplevel

    native = native or library()
    with _lock:
        if _registered:
            return
        # XLA looks the state's type up when the handler runs, so it has to be there first.
        xla_client.register_custom_type(
            _TYPE,
            {
                "type_id": _capsule(native.causeway_callbacks_type_id()),
                "type_info": _capsule(native.causeway_callbacks_type_info()),
            },
            platform="cpu",
        )
        handler = {
            "instantiate": _capsule(_address(native.causeway_callbacks_instantiate)),
            "execute": _capsule(_address(native.causeway_callbacks_execute)),
        }
        for name in _CLIENT_NAMES:
            xla_client.register_custom_call_target(name, handler, platform="cpu", api_version=1)
        _registered = True


def launch_calls(native=None):
    """Addresses of the C functions that the worker calls for launches, without Python."""
    native = native or library()
    return (
        _address(native.causeway_callbacks_hold),
        _address(native.causeway_callbacks_release),
        _address(native.causeway_callbacks_overdue),
    )


def check_custom_calls(module, platform="cpu"):
    """Raises ValueError for a module with custom calls that only its own client could serve."""
    from jax._src.lib.mlir import ir  # pylint: disable=import-outside-toplevel

    refused = []  # raising inside the walk would lose the type

    def visit(op):
        if op.name in ("stablehlo.custom_call", "mhlo.custom_call"):
            target = ir.StringAttr(op.attributes["call_target_name"]).value
            reason = _reason(ir, op, target, platform)
            if reason:
                refused.append(f"custom call {target} cannot run on a worker: {reason}")
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    if refused:
        raise ValueError(refused[0])


def _reason(ir, op, target, platform):
    """Why the call is refused, or None."""
    if target in _CLIENT_NAMES:
        if not _is_ours(ir, op):
            return (
                "the program was traced without Causeway's client package, which carries host"
                " callbacks; put it on the PYTHONPATH of the client"
            )
        if platform != "cpu":
            return f"host callbacks are served by CPU workers only, this one has {platform}"
        return None
    if target in _IN_PROCESS_NAMES:
        return "it points into the memory of the client; use Causeway's client package"
    for prefix, reason in _REFUSED_PREFIXES.items():
        if target.startswith(prefix):
            return reason
    if target in _REFUSED:
        return _REFUSED[target]
    if target in _COMPILER_NAMES or target.startswith(_COMPILER_PREFIXES):
        return None
    if target in _registered_names(platform):
        return None
    return (
        "nothing of that name is registered on the worker; load the library that registers it there"
    )


def _registered_names(platform):
    from jaxlib import xla_client  # pylint: disable=import-outside-toplevel

    names = {"cuda": "CUDA", "rocm": "ROCM"}
    return xla_client.custom_call_targets(names.get(platform, platform))


def _is_ours(ir, op):
    for name in ("mhlo.backend_config", "backend_config"):
        if name in op.attributes and isinstance(op.attributes[name], ir.DictAttr):
            return "channel" in ir.DictAttr(op.attributes[name])
    return False


def _address(function):
    return ctypes.cast(function, ctypes.c_void_p).value


def _capsule(address):
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(address, None, None)
