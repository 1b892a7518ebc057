"""Arrays of text."""

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

WORDS = ["one", "", "drei", "四", "5" * 100, "six", "seven", "eight"]
TEXT = np.array(WORDS, np.dtypes.StringDType())


def test_on_one_device(jax_env):
    array = jax.device_put(TEXT, jax_env.devices[0])
    np.testing.assert_array_equal(np.asarray(array), TEXT)


def test_spread(jax_env):
    array = jax.device_put(TEXT, NamedSharding(jax_env.mesh((8,), ("x",)), P("x")))
    np.testing.assert_array_equal(np.asarray(array), TEXT)
