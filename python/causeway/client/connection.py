"""One place to do something around the making of a connection, whoever makes it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

_around: list[Callable[[], contextlib.AbstractContextManager[None]]] = []


def around_connecting(context: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
    """Every later `ifrt_proxy.get_client` runs inside `context()`.

    The function itself is wrapped, not a backend factory, because pathwaysutils registers a factory
    of its own over ours.
    """
    from jax.extend.backend import ifrt_proxy

    if not _around:
        ifrt_proxy.get_client = _wrap(ifrt_proxy.get_client)
    if context not in _around:
        _around.append(context)


def _wrap(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def get_client(*arguments: Any, **keywords: Any) -> Any:
        with contextlib.ExitStack() as stack:
            for context in _around:
                stack.enter_context(context())
            return original(*arguments, **keywords)

    return get_client
