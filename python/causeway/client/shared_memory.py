"""Large uploads to a head on this machine go through files in memory, not through the connection.

The stock client can leave an array's bytes in a directory and tell the server so. The directory is
this process's own, below one folder a user that heads and workers use too
(src/causeway/base/shared_memory.h describes it); the head hears of it when the session opens.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import secrets
import shutil
import weakref
from pathlib import Path
from typing import Any

log = logging.getLogger("causeway.client")

ROOT = Path("/dev/shm")
ATTRIBUTE = "causeway_shared_folder"
DIRECTORY = "IFRT_PROXY_GRPC_LARGE_TRANSFER_OPTIMIZATION_DIRECTORY"
THRESHOLD = "IFRT_PROXY_GRPC_LARGE_TRANSFER_OPTIMIZATION_THRESHOLD_BYTES"
# Below this, a file costs more than it saves.
THRESHOLD_BYTES = 256 << 10
# Connections whose heads were told of our folder.
_sharing: weakref.WeakSet[Any] = weakref.WeakSet()
FREE_BYTES_MIN = 2 << 30
_LOCAL = ("localhost", "127.0.0.1", "[::1]", "ip6-localhost")


def install() -> None:
    from jax.extend.backend import ifrt_proxy

    original = ifrt_proxy.get_client
    if getattr(original, "_causeway_shared_memory", False):
        return

    @functools.wraps(original)
    def get_client(target: str, options: Any = None, *more: Any, **keywords: Any) -> Any:
        if _chosen_by_user() or folder_of_head(target) is None:
            if not _chosen_by_user() and not _sharing:
                os.environ.pop(DIRECTORY, None)  # inherited, and of no use to this head
            return original(target, options, *more, **keywords)
        try:
            _require_room()
            folder = own_folder()
        except OSError as error:
            log.warning("large arrays take the connection, not shared memory: %s", error)
            return original(target, options, *more, **keywords)
        options = options or ifrt_proxy.ClientConnectionOptions()
        options.initialization_data = {
            **dict(options.initialization_data or {}),
            ATTRIBUTE: str(folder).encode(),
        }
        # The stock client looks at the directory with every transfer, so it stays named. A child
        # process that inherits it and loads this package names its own.
        os.environ[DIRECTORY] = str(folder)
        os.environ.setdefault(THRESHOLD, str(THRESHOLD_BYTES))
        client = original(target, options, *more, **keywords)
        _sharing.add(client)
        return client

    get_client._causeway_shared_memory = True  # type: ignore[attr-defined]
    ifrt_proxy.get_client = get_client


def _chosen_by_user() -> bool:
    """Whether the directory was named by the user, not by us or by a process that started us."""
    named = os.environ.get(DIRECTORY)
    return bool(named) and not Path(named).is_relative_to(_user_folder())


def _require_room() -> None:
    """The stock client does not survive a full folder; a container may have given us 64 MiB."""
    found = os.statvfs(ROOT)
    free = found.f_bavail * found.f_frsize
    if free < FREE_BYTES_MIN:
        raise OSError(f"{ROOT} has {free:,} bytes free, fewer than {FREE_BYTES_MIN:,}")


def is_shared(client: Any) -> bool:
    """Whether the head of this connection was told of our folder."""
    return client in _sharing


def folder_of_head(target: str) -> Path | None:
    """Of the head behind grpc://HOST:PORT, if it is this user's and sees the same /dev/shm."""
    address = target.rpartition("//")[2]
    host, _, port = address.rpartition(":")
    if host not in _LOCAL or not port.isdigit():
        return None
    parent = _user_folder()
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            folder = parent / entry.name
            if (folder / f"head-{port}").exists() and _owner_lives(entry.name):
                return folder
    return None


@functools.cache
def own_folder() -> Path:
    """This process's folder; removed when the process ends, or by the next head or worker."""
    parent = _user_folder()
    parent.mkdir(mode=0o700, exist_ok=True)
    info = parent.lstat()
    if info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise OSError(f"{parent} is not a folder of this user alone; remove it")
    pid = os.getpid()
    folder = parent / f"{pid}-{_start_of(pid)}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    atexit.register(_remove, folder, pid)
    return folder


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # not in a child that a fork made
        shutil.rmtree(folder, ignore_errors=True)


def _user_folder() -> Path:
    return ROOT / f"causeway-{os.getuid()}"


def _start_of(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[19])


def _owner_lives(name: str) -> bool:
    parts = name.split("-")
    if len(parts) != 3 or not (parts[0].isdigit() and parts[1].isdigit()):
        return False
    return _start_of(int(parts[0])) == int(parts[1])
