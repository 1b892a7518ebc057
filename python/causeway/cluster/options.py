"""The shape and the ports of a cluster, as `up` is told them."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from causeway.cluster.errors import ClusterError, ExitCode

DEFAULT_NAME = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ANNOUNCE = ("auto", "true", "false")


@dataclasses.dataclass(frozen=True)
class ClusterOptions:
    """Port 0 means: any free port. Worker n listens on worker_port + n."""

    name: str = DEFAULT_NAME
    slices: int = 1
    hosts_per_slice: int = 1
    devices_per_host: int = 4
    spares: int = 0  # workers that stand by for the place of one that is lost
    platform: str = "cpu"
    host: str = "127.0.0.1"
    proxy_port: int = 29000
    server_port: int = 29001
    ops_port: int = 29002
    worker_port: int = 29005
    announce_slices: str = "auto"
    compile_cache: str = "auto"  # folder of compiled programs; "auto": the user's own; "off": none
    compile_cache_bytes: int = 4 << 30  # at most so much in it
    transfer_checksums: bool = False  # whether bytes of arrays bear checksums on their way
    shared_dir: str = ""  # where client and head exchange large host buffers; "" = they do not

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ClusterError(
                f"{self.name!r} is no cluster name: use letters, digits, '.', '_' and '-'",
                ExitCode.USAGE,
            )
        for field in ("slices", "hosts_per_slice", "devices_per_host"):
            value = getattr(self, field)
            if not 1 <= value <= 4096:
                flag = "--" + field.replace("_", "-")
                raise ClusterError(f"{flag} is {value}: it must be 1 to 4096", ExitCode.USAGE)
        if not 0 <= self.spares <= 1024:
            raise ClusterError(f"--spares is {self.spares}: it must be 0 to 1024", ExitCode.USAGE)
        for field in ("proxy_port", "server_port", "ops_port", "worker_port"):
            value = getattr(self, field)
            if not 0 <= value <= 65535:
                flag = "--" + field.replace("_", "-")
                raise ClusterError(f"{flag} is {value}: it must be 0 to 65535", ExitCode.USAGE)
        if self.compile_cache_bytes < 1 << 20:
            raise ClusterError(
                f"--compile-cache-bytes is {self.compile_cache_bytes}: it must be 1048576 or more "
                "(--compile-cache off keeps none)",
                ExitCode.USAGE,
            )
        if not self.compile_cache:
            raise ClusterError(
                "--compile-cache is empty: name a folder, or say auto or off", ExitCode.USAGE
            )
        if self.announce_slices not in _ANNOUNCE:
            raise ClusterError(
                f"--announce-slices is {self.announce_slices!r}: it must be one of "
                + ", ".join(_ANNOUNCE),
                ExitCode.USAGE,
            )

    @property
    def workers(self) -> int:
        return self.slices * self.hosts_per_slice

    @property
    def devices(self) -> int:
        return self.workers * self.devices_per_host

    def slice_of_worker(self, worker: int) -> int:
        return worker // self.hosts_per_slice

    def workers_of_slice(self, slice_index: int) -> range:
        if not 0 <= slice_index < self.slices:
            raise ClusterError(
                f"there is no slice {slice_index}: cluster {self.name!r} has slices 0 to "
                f"{self.slices - 1}",
                ExitCode.USAGE,
            )
        first = slice_index * self.hosts_per_slice
        return range(first, first + self.hosts_per_slice)

    def on_free_ports(self) -> ClusterOptions:
        return dataclasses.replace(self, proxy_port=0, server_port=0, ops_port=0, worker_port=0)

    def differences(self, other: ClusterOptions) -> list[str]:
        """One text per field in which `other` asks for something else; port 0 asks for nothing."""
        found = []
        for field in dataclasses.fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine == theirs or (field.name.endswith("_port") and theirs == 0):
                continue
            found.append(f"{field.name.replace('_', '-')} is {mine}, asked for {theirs}")
        return found

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> ClusterOptions:
        known = {field.name for field in dataclasses.fields(ClusterOptions)}
        return ClusterOptions(**{key: value for key, value in data.items() if key in known})
