"""What runs inside a user's JAX process: a table of small, separately switchable patches.

JAX finds the plugin `jax_plugins.causeway` by itself and calls `install()` here before it makes
its first backend. Nothing is touched unless JAX is told to use the platform "proxy".

CAUSEWAY_CLIENT_PATCHES chooses among them: `0` switches all off (registration of the backend
included), `-name,-other` switches these off. Unknown names are reported, not ignored.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import threading

log = logging.getLogger("causeway.client")


@dataclasses.dataclass(frozen=True)
class Patch:
    """`module` is imported only when wanted; calling its `install()` twice must be harmless."""

    name: str
    module: str
    reason: str


# In the order in which they are installed.
PATCHES = (
    Patch(
        "credentials",
        "causeway.client.credentials",
        "the stock client speaks only a cloud's credentials unless told that plaintext is fine",
    ),
    Patch(
        "backend",
        "causeway.client.backend",
        'registers "proxy", so that programs need no import to reach a cluster',
    ),
    Patch(
        "timer-slack",
        "causeway.client.timer_slack",
        "the stock client's threads wake thousands of times a second; letting the kernel merge "
        "the wake-ups takes an idle client from 20 % of a core to 3 %",
    ),
    Patch(
        "grpc-poller",
        "causeway.client.grpc_poller",
        "in the stock client an answer passes through a pool of gRPC's before it reaches the "
        "thread that waits: seven more wake-ups for each blocking call",
    ),
    Patch(
        "malloc",
        "causeway.client.malloc",
        "transfers come in 1 MiB pieces that glibc gives back to the kernel each time",
    ),
    # Before the next one, which knows a head by its port: the later one is asked first.
    Patch(
        "local-socket",
        "causeway.client.local_socket",
        "between processes of one machine a Unix socket costs half of what TCP does",
    ),
    Patch(
        "shared-memory",
        "causeway.client.shared_memory",
        "large arrays reach a head on this machine through shared memory, not through a socket",
    ),
    Patch(
        "shared-fetch",
        "causeway.client.shared_fetch",
        "reading a large array from workers on this machine costs one copy instead of many",
    ),
    Patch(
        "batched-copies",
        "causeway.client.batched_copies",
        "JAX asks for copies to a device one by one, twice each; the cluster takes all at once",
    ),
    Patch(
        "reshards",
        "causeway.client.reshards",
        "JAX changes an array's sharding in this process; the workers do it among themselves",
    ),
    Patch(
        "gpu-alias",
        "causeway.client.gpu_alias",
        'jax.devices("gpu") and jax.export look a backend up by its platform',
    ),
    Patch(
        "strides",
        "causeway.client.strides",
        "the stock client refuses NumPy arrays with negative or zero strides",
    ),
    Patch(
        "memory-stats",
        "causeway.client.memory_stats",
        "device.memory_stats() throws where code written for local devices expects an answer",
    ),
    Patch(
        "local-cpu",
        "causeway.client.repairs_local_cpu",
        "callbacks put their operands on a CPU device of this process, so there must be one",
    ),
    Patch(
        "async-collectives",
        "causeway.client.repairs_async_collectives",
        "the stock client cannot write collectives in two halves in the StableHLO that it sends",
    ),
    Patch(
        "callbacks",
        "causeway.client.callbacks",
        "debug.print, pure_callback, io_callback, buffer_callback and the like: the stock client "
        "cannot send them",
    ),
    Patch(
        "copies",
        "causeway.client.repairs_copies",
        "the stock client copies between local and remote devices in some places only",
    ),
    Patch(
        "dlpack",
        "causeway.client.repairs_dlpack",
        "remote arrays have no memory here to export or to share; a copy on the CPU has",
    ),
    Patch(
        "buffer-protocol",
        "causeway.client.repairs_buffer_protocol",
        "memoryview(x) and the like want memory in this process; a copy on the host has it",
    ),
    Patch(
        "buffer-pointer",
        "causeway.client.repairs_buffer_pointer",
        "the stock client refuses unsafe_buffer_pointer(); a copy here has an address",
    ),
    Patch(
        "array-copies",
        "causeway.client.repairs_array_copies",
        "the stock client reads NumPy arrays after the call that was given them has returned",
    ),
    Patch(
        "cost-analysis",
        "causeway.client.repairs_cost_analysis",
        "lowered.cost_analysis() is not offered by the stock client, but needs no remote device",
    ),
    Patch(
        "sharding-inspection",
        "causeway.client.repairs_sharding_inspection",
        "inspect_array_sharding under jit would send an address of this process to a worker; what "
        "it asks for can be found out here",
    ),
    Patch(
        "custom-partitioning",
        "causeway.client.repairs_custom_partitioning",
        "custom_partitioning would send an address of this process to a worker; the partitioning "
        "can be done here",
    ),
)

_lock = threading.Lock()
_installed: tuple[str, ...] = ()


def install() -> tuple[str, ...]:
    """Installs what is wanted, once a process; returns the names of what is installed.

    A patch that does not fit this version of JAX is left out with a warning: a program that does
    not need it must not fail for it.
    """
    global _installed
    with _lock:
        if _installed or not proxy_wanted():
            return _installed
        done = []
        for patch in _wanted(os.environ.get("CAUSEWAY_CLIENT_PATCHES", "")):
            try:
                importlib.import_module(patch.module).install()
                done.append(patch.name)
            except Exception as error:
                log.warning("client patch %s is left out: %s", patch.name, error)
        _installed = tuple(done)
        return _installed


def proxy_wanted() -> bool:
    import jax

    return "proxy" in (jax.config.jax_platforms or "").split(",")


def _wanted(choice: str) -> list[Patch]:
    words = [word.strip() for word in choice.split(",") if word.strip()]
    if words == ["0"]:
        return []
    off = {word.removeprefix("-") for word in words if word.startswith("-")}
    strange = [word for word in words if not word.startswith("-") and word != "1"]
    strange += sorted(off - {patch.name for patch in PATCHES})
    if strange:
        log.warning(
            "CAUSEWAY_CLIENT_PATCHES=%s: %s not understood; use 0, or -NAME among %s",
            choice,
            ", ".join(strange),
            ", ".join(patch.name for patch in PATCHES),
        )
    return [patch for patch in PATCHES if patch.name not in off]
