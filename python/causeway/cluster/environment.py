"""The environment that makes stock JAX use a cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from causeway.cluster.state import ClusterState

# A client that has this many uploads under way waits: unbounded, one loop over a data set can
# queue all of it in memory.
DEFAULT_UPLOADS = "64"


def client_variables(state: ClusterState) -> dict[str, str]:
    """What `up` prints: all that a user's program needs."""
    return {
        "JAX_PLATFORMS": "proxy",
        "JAX_BACKEND_TARGET": state.target,
        "IFRT_PROXY_USE_INSECURE_GRPC_CREDENTIALS": "true",
    }


def for_command(state: ClusterState, base: Mapping[str, str], client_path: Path) -> dict[str, str]:
    """`base` changed so that a command started with it uses the cluster."""
    result = dict(base)
    wanted = client_variables(state)
    if "proxy" in result.get("JAX_PLATFORMS", "").split(","):
        del wanted["JAX_PLATFORMS"]  # such as "proxy,cpu": the user's own choice
    result.update(wanted)
    result.setdefault("IFRT_PROXY_GRPC_MAX_ONGOING_HOST_BUFFER_STORES", DEFAULT_UPLOADS)
    # The stock client prints a stack trace at every normal end, as a warning.
    result.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if state.options.shared_dir:
        result.setdefault(
            "IFRT_PROXY_GRPC_LARGE_TRANSFER_OPTIMIZATION_DIRECTORY", state.options.shared_dir
        )
        # Without it the stock client never uses the folder.
        result.setdefault(
            "IFRT_PROXY_GRPC_LARGE_TRANSFER_OPTIMIZATION_THRESHOLD_BYTES", str(256 << 10)
        )
    old = result.get("PYTHONPATH")
    result["PYTHONPATH"] = os.pathsep.join([str(client_path), *([old] if old else [])])
    return result


def for_server(base: Mapping[str, str]) -> dict[str, str]:
    """`base` for head and workers: nothing in it may turn them into clients."""
    result = {
        key: value
        for key, value in base.items()
        if key not in ("JAX_PLATFORMS", "JAX_BACKEND_TARGET") and not key.startswith("IFRT_PROXY_")
    }
    package_parent = str(Path(__file__).resolve().parent.parent.parent)
    old = result.get("PYTHONPATH")
    result["PYTHONPATH"] = os.pathsep.join([package_parent, *([old] if old else [])])
    result["PYTHONUNBUFFERED"] = "1"
    # Large arrays in huge pages: the first touch of a new page costs several times the copying. Has
    # to be there before the process starts; other C libraries than glibc 2.35 and later ignore it.
    result.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    return result
