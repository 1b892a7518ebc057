"""How each platform's XLA client is made: CPU with gloo, or a PJRT plugin such as CUDA."""

import contextlib
import dataclasses
import hashlib
import importlib
import os
import pathlib
import platform as _machine
import sys

import jaxlib
from jaxlib import _jax
from jaxlib import xla_client as xc

# Seconds that registering with the coordination service may take.
_CONNECT_SECONDS = 20
# The head decides who is alive; jaxlib's own heartbeat must never do so first.
_HEARTBEAT_SECONDS = 86400


@dataclasses.dataclass
class Facts:
    """What a worker says of its devices when it attaches."""

    name: str
    device_kind: str
    memory_kinds: list
    version: str
    num_devices: int


def _version():
    return f"jaxlib {jaxlib.__version__}, Python {sys.version.split()[0]}"


def compile_target(platform, overrides):
    """What compiled code depends on beside XLA and the kind of device: hex digits.

    XLA:CPU compiles for the features of this machine's CPU. `overrides`: bytes of the options that
    the worker sets on its own.
    """
    parts = [os.environ.get("XLA_FLAGS", "").encode(), overrides]
    if platform == "cpu":
        parts += [_machine.machine().encode(), _cpu_features()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _cpu_features():
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_bytes().splitlines():
            if line.startswith((b"flags", b"Features")):
                return b" ".join(sorted(line.partition(b":")[2].split()))
    except OSError:
        pass
    return _machine.processor().encode()


def distributed_client(node, coordinator):
    """Connected to the coordination service at `coordinator`; never ends this process."""
    client = _jax.get_distributed_runtime_client(
        coordinator,
        node,
        init_timeout=_CONNECT_SECONDS,
        heartbeat_timeout=_HEARTBEAT_SECONDS,
        shutdown_on_destruction=False,
        use_compression=False,
        missed_heartbeat_callback=lambda *_: None,
    )
    client.connect()
    return client


class Cpu:
    """XLA:CPU with several devices; gloo between processes, the process's own memory where there
    is only one."""

    def __init__(self, num_devices):
        from jaxlib import lapack  # pylint: disable=import-outside-toplevel

        lapack._lapack.initialize()
        self._num_devices = num_devices or 1

    def facts(self):
        kinds = ["device", "pinned_host", "unpinned_host"]
        return Facts("cpu", "cpu", kinds, _version(), self._num_devices)

    def open(self, node, coordinator, num_nodes):
        """An XLA client; `node` is None for the only host of a cluster."""
        peers = {} if node is None else _peers(node, coordinator, num_nodes)
        with _threads_inside_operations(self._num_devices):
            return xc.make_cpu_client(asynchronous=True, num_devices=self._num_devices, **peers)


class Plugin:
    """A PJRT plugin that is installed beside jaxlib (CUDA, ROCm)."""

    _PACKAGES = {
        "cuda": ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12"),
        "rocm": ("jax_plugins.xla_rocm7", "jax_plugins.xla_rocm60"),
    }

    def __init__(self, name, num_devices):
        from jax._src import xla_bridge  # pylint: disable=import-outside-toplevel

        self._name = name
        self._num_devices = num_devices
        self._bridge = xla_bridge
        errors = []
        for package in self._PACKAGES[name]:
            try:
                importlib.import_module(package).initialize()
                break
            except Exception as error:  # pylint: disable=broad-except
                errors.append(f"{package}: {error}")
        if not xc.pjrt_plugin_loaded(name):
            raise RuntimeError(
                f"the {name} plugin cannot be loaded ({'; '.join(errors)});"
                f" install jax[{name}] beside jaxlib on this host"
            )
        if not xc.pjrt_plugin_initialized(name):
            xc.initialize_pjrt_plugin(name)

    def _options(self):
        options = dict(xc.generate_pjrt_gpu_plugin_options())
        # Several clients share the memory across an epoch change, so no one may take it all.
        options.setdefault("preallocate", False)
        options["abort_collectives_on_failure"] = True
        options["platform_name"] = self._name
        if self._num_devices:
            options["visible_devices"] = list(range(self._num_devices))
        return options

    def facts(self):
        client = xc.make_c_api_client(self._name, self._options(), None)
        devices = client.local_devices()
        kinds = [m.kind for m in devices[0].addressable_memories()]
        return Facts("gpu", devices[0].device_kind, kinds, _version(), len(devices))

    def open(self, node, coordinator, num_nodes):
        """An XLA client; `node` is None for the only host of a cluster."""
        options = self._options()
        if node is None:
            return xc.make_c_api_client(self._name, options, None)
        options["node_id"] = node
        options["num_nodes"] = num_nodes
        return xc.make_c_api_client(self._name, options, distributed_client(node, coordinator))


def _peers(node, coordinator, num_nodes):
    """What a CPU client of several hosts needs besides its devices."""
    distributed = distributed_client(node, coordinator)
    host = _local_address(coordinator)
    with _new_threads_wait_their_turn():
        collectives = _jax.make_gloo_tcp_collectives(distributed_client=distributed, hostname=host)
    return {
        "distributed_client": distributed,
        "node_id": node,
        "num_nodes": num_nodes,
        "collectives": collectives,
    }


@contextlib.contextmanager
def _threads_inside_operations(devices):
    """XLA clients made in here run as many threads inside operations as one of plain JAX does.

    The number that XLA takes from PJRT_NPROC is for programs as well, of which more may wait for
    others (src/causeway/device/held_threads.h).
    """
    from causeway._native import _worker  # pylint: disable=import-outside-toplevel

    _worker.keep_threads_back(max(len(os.sched_getaffinity(0)), devices))
    try:
        yield
    finally:
        _worker.keep_threads_back(0)


@contextlib.contextmanager
def _new_threads_wait_their_turn():
    """A wake-up of the threads made in here does not interrupt whoever runs.

    gloo's own thread spins for the lock of a connection on which a launch's thread sends. Where it
    has taken that thread's processor, it spins until the scheduler intervenes, on both sides of
    every message: two thirds of a small all-reduce's processor time.
    """
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    changed = policy == os.SCHED_OTHER
    if changed:
        with contextlib.suppress(OSError):  # forbidden in this container: slower, but right
            os.sched_setscheduler(0, os.SCHED_BATCH, parameter)
    try:
        yield
    finally:
        if changed:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, policy, parameter)


def _local_address(coordinator):
    """This host's address on the way to the coordinator, for gloo to listen on."""
    import socket  # pylint: disable=import-outside-toplevel

    host, _, port = coordinator.rpartition(":")
    host = host.strip("[]")
    family = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
    with socket.socket(family[0], socket.SOCK_DGRAM) as probe:
        probe.connect(family[4])
        return probe.getsockname()[0]


def create(name, num_devices):
    """The platform by name: cpu, cuda, rocm."""
    if name == "cpu":
        return Cpu(num_devices)
    if name in Plugin._PACKAGES:
        return Plugin(name, num_devices)
    raise ValueError(f"unknown platform {name!r}; use cpu, cuda or rocm")
