"""Programs in a worker's host memory: colocated Python on one of two workers, and files."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from causeway.worker import dtypes, host_files, host_parts, host_programs, text

WORDS = np.array([["", "zwei"], ["d" * 300, "四"]], np.dtypes.StringDType())


def test_text_comes_back() -> None:
    np.testing.assert_array_equal(text.decode(text.encode(WORDS), (2, 2)), WORDS)
    assert text.decode(b"", (0, 3)).shape == (0, 3)
    assert text.encode(np.array(["ab", ""], np.dtypes.StringDType())) == b"\n\x02ab\n\x00"


def test_parts_are_copies() -> None:
    mine = np.arange(4, dtype=np.float32)
    device, address, size, owner, dims = host_parts.part(3, mine)
    mine[:] = 0
    assert (device, address, size, dims) == (3, owner.ctypes.data, 16, (4,))
    np.testing.assert_array_equal(owner, [0, 1, 2, 3])


def _shard(device: int, value: np.ndarray) -> host_parts.Shard:
    return device, dtypes.NUMBERS[value.dtype.name], value.tobytes(), value.shape


def _plan(op: str, folder: Path, **more: object) -> dict[str, object]:
    rows = {str(d): {"start": [2 * d, 0], "dims": [2, 3], "first": d < 2} for d in range(2)}
    item = {
        "location": str(folder),
        "name": "w",
        "dtype": dtypes.NUMBERS["bfloat16"],
        "shape": [4, 3],
        "timeout": 20.0,
        "chunk": [2, 3],
        "shards": rows,
    }
    return {"op": op, "items": [item | more]}


def test_every_worker_writes_and_reads_its_own_shards(tmp_path: Path) -> None:
    value = np.arange(12).reshape(4, 3).astype(dtypes.of(dtypes.NUMBERS["bfloat16"]))
    for worker in range(2):
        writer = host_programs.load(
            1, "write", json.dumps(_plan("write", tmp_path)).encode(), worker, 2, 1
        )
        rows = value[2 * worker : 2 * worker + 2]
        assert writer.run([[_shard(worker, rows)]]) == []
    for worker in range(2):
        reader = host_files.program(_plan("read", tmp_path), worker, 1)
        (parts,) = reader.run([])
        assert [part[0] for part in parts] == [worker]
        np.testing.assert_array_equal(parts[0][3], value[2 * worker : 2 * worker + 2])


def test_a_file_that_does_not_fit_is_a_users_mistake(tmp_path: Path) -> None:
    for plan in (_plan("read", tmp_path / "none"), _plan("read", tmp_path, name="other")):
        reader = host_programs.load(1, "read", json.dumps(plan).encode(), 0, 2, 1)
        with pytest.raises(RuntimeError, match=r"^INVALID_ARGUMENT: ") as told:
            reader.run([])
        assert "raised by read on worker 0" in str(told.value)
        assert "NOT_FOUND" not in str(told.value)


def test_an_operator_may_refuse_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSEWAY_HOST_PROGRAMS", "0")
    for kind in (1, 2):
        with pytest.raises(RuntimeError, match=r"^PERMISSION_DENIED: .*compiled programs only"):
            host_programs.load(kind, "f", b"", 0, 1, 1)


# Run in a process of its own, for it takes the process's JAX over: worker 1 of 2 with 2 devices.
_WORKER = """
    import json, pickle, sys
    import numpy as np
    from causeway.worker import host_programs

    code = pickle.load(sys.stdin.buffer)
    shards = [(d, 11, np.full(2, d, np.float32).tobytes(), (2,)) for d in (2, 3)]

    def run(name):
        program = host_programs.load(2, name, code[name], 1, 2, 2)
        try:
            return [[(p[0], p[3].tolist()) for p in parts] for parts in program.run([shards])]
        except RuntimeError as error:
            return str(error)

    print(json.dumps({name: run(name) for name in code}))
"""
_CLIENT = """
    import pickle, sys
    import jax, numpy as np
    from jax.experimental import colocated_python
    from jax.experimental.colocated_python import serialization
    from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

    devices = jax.devices()
    sharding = NamedSharding(Mesh(devices, "x"), P("x"))
    spec = jax.ShapeDtypeStruct((8,), np.float32, sharding=sharding)
    small = jax.ShapeDtypeStruct((), np.int32, sharding=NamedSharding(Mesh(devices, "x"), P()))

    def whole(x):
        return x * 2 + 1

    def where(x):
        devices = list(mesh.devices.flat)
        assert jax.local_devices() == devices[2:] and jax.process_index() == 1
        # What goes back to the client names the cluster's devices, not this process's.
        pickled = serialization._serialize(mesh)
        told = []
        lookup, serialization._unreduce_mesh = serialization._unreduce_mesh, (
            lambda ids, names, types: told.append(ids.tolist())
        )
        serialization._deserialize(pickled)
        serialization._unreduce_mesh = lookup
        assert told == [[0, 1, 2, 3]], told
        one = [s.data[0].astype(np.int32) * 0 + len(jax.devices()) for s in x.addressable_shards]
        return jax.make_array_from_single_device_arrays((), small.sharding, one)

    def wrong(x):
        raise KeyError("these words")

    def shape(x):
        return x.addressable_shards[0].data

    def number(x):
        return 3

    mesh = sharding.mesh
    tree = jax.tree.structure(((0,), {}))
    code = {}
    for f, out in ((whole, spec), (where, small), (wrong, spec), (shape, spec), (number, spec)):
        pickled = (f, tree, (spec,), jax.tree.structure(0), (out,), None)
        code[f.__name__] = serialization._serialize(pickled)
    pickle.dump(code, sys.stdout.buffer)
"""


def _python(code: str, data: bytes = b"", **more: str) -> bytes:
    import os

    environment = os.environ | {"JAX_PLATFORMS": "cpu"} | more
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        input=data,
        capture_output=True,
        env=environment,
        timeout=100,
        check=False,
    )
    assert done.stdout, done.stderr.decode()
    return done.stdout


def test_colocated_python_on_one_of_two_workers() -> None:
    pickled = _python(_CLIENT, XLA_FLAGS="--xla_force_host_platform_device_count=4")
    told = json.loads(_python(_WORKER, pickled).splitlines()[-1])
    assert told["whole"] == [[[2, [5, 5]], [3, [7, 7]]]]
    assert told["where"] == [[[2, 4], [3, 4]]]
    assert told["wrong"].startswith("INVALID_ARGUMENT: KeyError: 'these words'\n")
    assert "raised by wrong on worker 1" in told["wrong"]
    assert "float32[2], its specification has float32[8]" in told["shape"]
    assert "where a jax.Array has to be" in told["number"]
