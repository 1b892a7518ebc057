"""The plugin that JAX discovers by itself; all it does is to call the client package."""

from __future__ import annotations


def initialize() -> None:
    """Called by JAX before it makes its first backend, in every program that can see this file."""
    from causeway import client

    client.install()
