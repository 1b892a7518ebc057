"""The devices that users' Python sees on a worker: CPU devices under the cluster's ids.

They belong to an XLA:CPU client of their own, which lives as long as the process: users' objects
and compiled functions outlast a change of epoch, and their work does not fill the pool of the
launches. Every worker knows the devices of all workers, so that a mesh over several of them means
the same everywhere; only its own ones hold data here. There are no collectives between workers.
"""

import os

import jax
import numpy as np
from jax._src import xla_bridge
from jax.experimental.colocated_python import serialization
from jaxlib import _jax
from jaxlib import xla_client as xc

from causeway.worker import platforms
from causeway.worker.protobuf import content, number

# XLA numbers the devices of a CPU process from its index times this.
_PER_PROCESS = 2048


class HostDevices:
    """Makes the client and makes it JAX's default backend in this process. Once a process."""

    def __init__(self, worker: int, num_workers: int, per_host: int):
        self.worker = worker
        self._per_host = per_host
        # The store behind the client has to live as long as it.
        self._keep, self._client = _client(worker, num_workers, per_host)
        self._by_id = {self.logical(d): d for d in self._client.devices()}
        with xla_bridge._backend_lock:
            xla_bridge._backends["cpu"] = self._client
            xla_bridge._default_backend = self._client
        _translate_ids(self)

    def device(self, logical: int) -> jax.Device:
        return self._by_id[logical]

    def by_id(self) -> dict[int, jax.Device]:
        return self._by_id

    def logical(self, device: jax.Device) -> int:
        """The id that the cluster's clients know the device by."""
        return device.process_index * self._per_host + device.id % _PER_PROCESS


def _client(worker, num_workers, per_host):
    if num_workers == 1:
        return None, xc.make_cpu_client(asynchronous=True, num_devices=per_host)
    # XLA's processes tell each other their devices through a key-value store. Here everybody has a
    # store of its own that says what the others would say: nobody waits for anybody.
    address = f"unix-abstract:causeway-host-{os.getpid()}"
    service = _jax.get_distributed_runtime_service(address, 1)
    store = platforms.distributed_client(0, address)
    if worker == 0:
        for other in range(1, num_workers):
            store.key_value_set_bytes(f"cpu:local_topology/cpu/{other}", _process(other, per_host))
    else:
        everybody = b"".join(content(1, _process(w, per_host)) for w in range(num_workers))
        store.key_value_set_bytes("cpu:global_topology/cpu", everybody)
    # Programs over several processes need some collectives; these find no peer and say so.
    collectives = _jax.make_gloo_tcp_collectives(distributed_client=store, hostname="127.0.0.1")
    client = xc.make_cpu_client(
        asynchronous=True,
        distributed_client=store,
        node_id=worker,
        num_nodes=num_workers,
        collectives=collectives,
        num_devices=per_host,
    )
    return (service, store), client


def _process(worker: int, per_host: int) -> bytes:
    """A LocalTopologyProto (proto/topology.proto)."""
    out = number(1, worker) + content(2, b"worker%d" % worker)
    for k in range(per_host):
        device = worker * _PER_PROCESS + k
        out += content(
            3,
            number(1, k)
            + number(4, device)
            + number(5, worker)
            + content(8, b"cpu")
            + content(9, b"CpuDevice(id=%d)" % device)
            + content(10, b"TFRT_CPU_%d" % device),
        )
    return out


def _translate_ids(devices: HostDevices) -> None:
    """Lets JAX write and read the cluster's ids where it pickles devices, not this client's."""
    once = serialization._make_reduce_func_with_common_obj

    @once
    def mesh(value):
        ids = np.vectorize(devices.logical, otypes=[int])(value.devices)
        return serialization._unreduce_mesh, (ids, value.axis_names, value.axis_types)

    @once
    def device_list(value):
        return serialization._unreduce_device_list, ([devices.logical(d) for d in value],)

    @once
    def single(value):
        (device,) = value.device_set
        return (
            serialization._unreduce_single_device_sharding,
            (devices.logical(device), value.memory_kind),
        )

    serialization._get_cpu_device_map = devices.by_id
    serialization._reduce_mesh = mesh
    serialization._reduce_device_list = device_list
    serialization._reduce_single_device_sharding = single
