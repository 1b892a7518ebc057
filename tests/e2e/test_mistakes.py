"""A user's mistakes: refused with a code of their own, and the session goes on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from end_to_end import Client, ClientError, Cluster

LOST = ("DATA_LOSS", "DEADLINE_EXCEEDED", "NOT_FOUND", "INTERNAL")
MISTAKES = {
    "unknown custom call": (
        "call = jax.ffi.ffi_call('nobody_has_this', jax.ShapeDtypeStruct((2,), np.float32))\n"
        "jax.block_until_ready(jax.jit(lambda a: call(a))(jnp.ones(2)))",
        "nobody_has_this",
    ),
    "program that is no program": (
        "from jax._src import compiler\n"
        "from jax._src.lib.mlir import ir\n"
        "lowered = jax.jit(lambda a: a + 1).lower(jnp.ones(2))\n"
        "lowered.compile(compiler_options={'xla_no_such_option': 1})",
        "xla_no_such_option",
    ),
    "more memory than there is": (
        "jax.block_until_ready(jax.jit(lambda: jnp.zeros(1 << 45, jnp.float32))())",
        "RESOURCE_EXHAUSTED",
    ),
    "more memory than there is, on all devices": (
        "jax.block_until_ready(jax.jit(lambda: jnp.zeros(1 << 46, jnp.float32),\n"
        "                              out_shardings=rows)())",
        "RESOURCE_EXHAUSTED",
    ),
    "a callback that raises, on all devices": (
        "def boom(v): raise ValueError('a reason of mine')\n"
        "f = lambda v: jax.pure_callback(boom, v, v) + lax.pmean(v, 'x')\n"
        "f = jax.jit(jax.shard_map(f, mesh=mesh, in_specs=P('x'), out_specs=P('x')))\n"
        "jax.block_until_ready(f(jax.device_put(np.ones(8, np.float32), rows)))",
        "a reason of mine",
    ),
    "the same array donated and used": (
        "x = jax.device_put(np.ones(8, np.float32), rows)\n"
        "jax.block_until_ready(jax.jit(lambda a, b: a + b, donate_argnums=0)(x, x))",
        "INVALID_ARGUMENT",
    ),
    "arrays of another shape than the program was compiled for": (
        "f = jax.jit(lambda a: a + a.mean()).lower(jax.device_put(np.ones(8, np.float32), rows))\n"
        "for _ in range(2):\n"
        "    with np.testing.assert_raises_regex(Exception, 'takes float32.2.|deleted'):\n"
        "        out = f.compile().runtime_executable().execute_sharded(\n"
        "            [jax.device_put(np.ones(16, np.float32), rows)])\n"
        "        jax.block_until_ready(out.disassemble_into_single_device_arrays())\n"
        "f.compile().runtime_executable().execute_sharded(\n"
        "    [jax.device_put(np.ones(8, np.int32), rows)]\n"
        ").disassemble_into_single_device_arrays()[0][0].block_until_ready()",
        "INVALID_ARGUMENT: argument 0 of jit__lambda is int32[2]",
    ),
    "an array that was donated": (
        "x = jax.device_put(np.ones(8, np.float32), rows)\n"
        "y = jax.jit(lambda a: a + 1, donate_argnums=0)(x)\n"
        "jax.block_until_ready(jax.jit(lambda a: a * 2)(x))",
        "deleted",
    ),
}


@pytest.fixture(scope="module")
def cluster(start_cluster: Callable[..., Cluster]) -> Cluster:
    return start_cluster(slices=1, hosts_per_slice=2, devices_per_host=2)


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Client:
    return cluster.client()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_refused_and_the_session_goes_on(
    mistake: str, cluster: Cluster, client: Client
) -> None:
    code, expected = MISTAKES[mistake]
    epochs = cluster.status()["counters"]["epoch_changes_total"]
    with pytest.raises(ClientError) as caught:
        client.do(code)
    text = str(caught.value)
    # What can be seen to be wrong is refused before any worker hears of it.
    if not any(word in mistake for word in ("memory", "raises")):
        assert cluster.status()["counters"]["epoch_changes_total"] == epochs
    assert expected.lower() in text.lower()
    assert not any(name in text for name in LOST), text
    # Programs over all workers still pair up rightly.
    total = client.do(
        """
        x = jax.device_put(np.arange(8, dtype=np.float32), rows)
        for _ in range(4): x = jax.jit(lambda a: a + a.mean())(x)
        result = np.asarray(x).tolist()
        """
    )
    expected_value = [float(n) for n in range(8)]
    for _ in range(4):
        mean = sum(expected_value) / 8
        expected_value = [v + mean for v in expected_value]
    assert total == pytest.approx(expected_value)


def test_an_asynchronous_failure_reaches_descendants_only(client: Client) -> None:
    client.do(
        """
        good = jax.device_put(np.ones(8, np.float32), rows)
        bad = jax.jit(lambda: jnp.zeros(1 << 45, jnp.float32))
        """
    )
    with pytest.raises(ClientError, match="RESOURCE_EXHAUSTED"):
        client.do("z = jax.jit(lambda a: a[:8] * 2)(bad()); np.asarray(z)")
    assert client.do("result = np.asarray(good * 2).tolist()") == [2.0] * 8
