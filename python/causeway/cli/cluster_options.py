"""The options that describe a cluster, shared by `up`, `run` and `demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from causeway.cluster.options import ClusterOptions

_SHAPE = "Shape of the cluster"
_PORTS = "Ports (0 = any free one)"

NameOption = Annotated[str, typer.Option("--name", help="which cluster of this machine")]
SlicesOption = Annotated[
    int, typer.Option("--slices", min=1, help="units of failure", rich_help_panel=_SHAPE)
]
HostsOption = Annotated[
    int,
    typer.Option("--hosts-per-slice", min=1, help="workers in a slice", rich_help_panel=_SHAPE),
]
DevicesOption = Annotated[
    int,
    typer.Option("--devices-per-host", min=1, help="devices of a worker", rich_help_panel=_SHAPE),
]
SparesOption = Annotated[
    int,
    typer.Option(
        "--spares", min=0, help="workers that stand by for a lost one", rich_help_panel=_SHAPE
    ),
]
PlatformOption = Annotated[
    str, typer.Option("--platform", help="cpu, cuda, ...", rich_help_panel=_SHAPE)
]
AnnounceOption = Annotated[
    str,
    typer.Option(
        "--announce-slices",
        help="whether devices bear slice_index: auto (when there are several), true, false",
        rich_help_panel=_SHAPE,
    ),
]
HostOption = Annotated[
    str, typer.Option("--host", help="address to listen on", rich_help_panel=_PORTS)
]
ProxyPortOption = Annotated[
    int, typer.Option("--proxy-port", help="JAX clients", rich_help_panel=_PORTS)
]
ServerPortOption = Annotated[
    int, typer.Option("--server-port", help="workers", rich_help_panel=_PORTS)
]
OpsPortOption = Annotated[
    int, typer.Option("--ops-port", help="HTTP: status, metrics", rich_help_panel=_PORTS)
]
WorkerPortOption = Annotated[
    int, typer.Option("--worker-port", help="first worker's own", rich_help_panel=_PORTS)
]
CompileCacheOption = Annotated[
    str,
    typer.Option(
        "--compile-cache",
        help="folder where compiled programs stay for later clusters: auto (yours), off, or a path",
    ),
]
CompileCacheBytesOption = Annotated[
    int, typer.Option("--compile-cache-bytes", help="at most so many bytes in it")
]
TransferChecksumsOption = Annotated[
    bool,
    typer.Option("--transfer-checksums", help="verify the bytes of arrays on their way (xxHash)"),
]
SharedDirOption = Annotated[
    str,
    typer.Option("--shared-dir", help="folder through which large buffers pass on this machine"),
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", help="seconds to wait for the whole cluster")
]

DEFAULT = ClusterOptions()
DEFAULT_NAME = DEFAULT.name
