"""`jnp.array(x)` of a NumPy array: the copy is made before the call returns.

JAX hands NumPy arrays to its client as memory that nobody will change. On local devices they are
copied, or taken over as they are, by the time the call returns; the stock client reads them later,
on a thread of its own. `jnp.array` promises a copy, so its caller may change the array at once.
"""

from __future__ import annotations

import functools
from typing import Any

_INSTALLED = "_causeway_array_copies"


def install() -> None:
    import jax
    import numpy as np
    from jax._src.numpy import array_constructors

    original = array_constructors.array
    if hasattr(original, _INSTALLED):
        return

    @functools.wraps(original)
    def array(object: Any, *args: Any, **options: Any) -> Any:
        if isinstance(object, np.ndarray) and options.get("copy", True):
            object = object.copy()
        return original(object, *args, **options)

    setattr(array, _INSTALLED, True)
    array_constructors.array = array
    jax.numpy.array = array
