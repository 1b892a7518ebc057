"""Programs compile once in a user's life: the next cluster finds them on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from end_to_end import Cluster

SOURCE = """
x = jax.device_put(np.arange(8, dtype=np.float32), rows)
result = float(jax.jit(lambda v: jnp.tanh(v * 1.25).sum())(x))
"""


def _one_life(start_cluster: Callable[..., Cluster], cache: Path) -> tuple[float, dict[str, int]]:
    from causeway.cluster import launcher

    cluster = start_cluster(slices=2, devices_per_host=2, compile_cache=str(cache))
    try:
        return cluster.client().do(SOURCE), cluster.status()["counters"]
    finally:
        cluster.close()
        launcher.stop(cluster.name)


@pytest.mark.timeout_seconds(240)
def test_a_new_cluster_compiles_nothing(
    start_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    cache = tmp_path / "programs"
    first, cold = _one_life(start_cluster, cache)
    assert cold["compiles_total"] > 0
    assert cold["disk_cache_stored_total"] == cold["compiles_total"]
    again, warm = _one_life(start_cluster, cache)
    assert again == first
    assert warm["compiles_total"] == 0
    assert warm["disk_cache_hits_total"] == cold["compiles_total"]
    # Damaged files are noticed, dropped and written anew.
    for file in cache.iterdir():
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    damaged, mended = _one_life(start_cluster, cache)
    assert damaged == first
    assert mended["disk_cache_dropped_total"] == cold["compiles_total"]
    assert mended["compiles_total"] == cold["compiles_total"]
