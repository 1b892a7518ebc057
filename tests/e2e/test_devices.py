"""The devices that a client sees are those of the cluster, slice by slice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FACTS = """
result = [[d.id, d.slice_index, d.process_index, d.platform, d.client.runtime_type]
          for d in devices]
"""


def test_twelve_devices_of_three_slices(fresh: Callable[..., Any]) -> None:
    cluster = fresh(slices=3, hosts_per_slice=2, devices_per_host=2)
    client = cluster.client()
    facts = client.do(FACTS)
    assert [fact[0] for fact in facts] == list(range(12))
    assert [fact[1] for fact in facts] == [n // 4 for n in range(12)]
    assert {tuple(fact[2:]) for fact in facts} == {(0, "cpu", "proxy/pathways")}
    assert client.do("result = jax.device_count(), jax.local_device_count(), jax.process_count()") \
        == [12, 12, 1]
    # A program over all of them, which are on six workers.
    client.do("x = jax.device_put(np.arange(12, dtype=np.float32), rows)")
    assert client.do("result = float(jax.jit(lambda v: v.sum())(x))", 90.0) == 66.0
    client.do("from jax.experimental import mesh_utils")
    shape = client.do(
        "m = mesh_utils.create_hybrid_device_mesh((4,), (3,), devices)\nresult = m.shape"
    )
    assert shape == [12]
    listed = cluster.status()
    assert len(listed["workers"]) == 6
    assert len(cluster_devices(cluster)) == 12


def cluster_devices(cluster: Any) -> list[Any]:
    import json

    return json.loads(cluster._get("/devices"))["devices"]


def test_one_slice_is_not_announced_as_several(shared: Any, fresh: Callable[..., Any]) -> None:
    """Plain programs on one slice may build any mesh."""
    client = fresh(slices=1, hosts_per_slice=2, devices_per_host=2).client()
    assert client.do("result = dict(jax.make_mesh((2, 2), ('a', 'b')).shape)") == {"a": 2, "b": 2}
