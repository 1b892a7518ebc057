"""Causeway: one unmodified JAX process drives every device of a cluster.

Importing this package imports no JAX and no third-party code: the supervisor and the command line
rely on that to start at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causeway.version import __version__

if TYPE_CHECKING:
    from causeway.connect import Connection, connect

__all__ = ["Connection", "__version__", "connect"]


def __getattr__(name: str) -> Any:
    if name in ("connect", "Connection"):
        import importlib

        # The module bears the function's name: put the function in its place for good.
        module = importlib.import_module("causeway.connect")
        globals()["connect"] = module.connect
        globals()["Connection"] = module.Connection
        return globals()[name]
    raise AttributeError(f"module 'causeway' has no attribute {name!r}")
