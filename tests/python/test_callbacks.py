"""Host callbacks from XLA through handler, relay and channel into Python, without a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FAKES = Path(__file__).resolve().parent / "fakes"
NATIVE = ROOT / "python" / "causeway" / "_native" / "_callbacks.so"

pytestmark = pytest.mark.skipif(not NATIVE.exists(), reason="the handler is not built")

PRELUDE = """
import threading, time
import numpy as np
import jax, jax.numpy as jnp
from functools import partial
from jax.experimental import io_callback
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import callback_host
callback_host.connect()
scalar = jax.ShapeDtypeStruct((), np.float32)
def like(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
"""


def run(code: str, *, timeout: float = 100) -> subprocess.CompletedProcess[str]:
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "CAUSEWAY_"))}
    env = keep | {
        "PYTHONPATH": f"{FAKES}:{ROOT / 'python'}",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "NPROC": "32",
    }
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def printed(code: str) -> list[str]:
    done = run(code)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_ordered_prints_keep_their_order_and_the_path_is_ours() -> None:
    lines = printed("""
@jax.jit
def f(x):
    def body(i, x):
        jax.debug.print("step {i} {x}", i=i, x=x, ordered=True)
        return x + 1
    return jax.lax.fori_loop(0, 20, body, x)
for _ in range(3):
    f(0).block_until_ready()
jax.effects_barrier()
print("calls", callback_host.tell_relay("stats")["calls"])
""")
    assert lines == [f"step {i} {i}" for i in range(20)] * 3 + ["calls 60"]


def test_pure_callback_under_vmap_and_grad() -> None:
    lines = printed("""
@jax.custom_jvp
def sin(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x,
                             vmap_method="expand_dims")
@sin.defjvp
def _(primals, tangents):
    x, = primals
    cos = jax.pure_callback(np.cos, jax.ShapeDtypeStruct(x.shape, x.dtype), x,
                            vmap_method="sequential")
    return sin(x), cos * tangents[0]
x = np.linspace(0, 1, 5, dtype=np.float32)
np.testing.assert_allclose(jax.jit(sin)(x), np.sin(x), rtol=1e-6)
np.testing.assert_allclose(jax.vmap(sin)(x), np.sin(x), rtol=1e-6)
np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(sin)))(x), np.cos(x), rtol=1e-6)
print(callback_host.tell_relay("stats")["calls"] > 5)
""")
    assert lines == ["True"]


def test_element_types_shapes_and_counts() -> None:
    lines = printed("""
jax.config.update("jax_enable_x64", True)
seen = 0
for name in ("bool", "int8", "uint16", "int64", "float16", "bfloat16", "float64", "complex64",
             "complex128", "float8_e4m3fn", "int4", "uint4", "int2", "uint2", "float4_e2m1fn"):
    for shape in ((), (0, 3), (1,), (5,), (3, 7)):
        dtype = jnp.dtype(name)
        x = jnp.asarray(np.arange(int(np.prod(shape))).reshape(shape) % 2, dtype)
        def echo(a, b):
            assert np.asarray(a).dtype == dtype and a.shape == shape, (a.dtype, a.shape)
            return b, a
        result = jax.ShapeDtypeStruct(shape, dtype)
        one, two = jax.jit(lambda a: jax.pure_callback(echo, (result, result), a, a))(x)
        for y in (one, two):
            np.testing.assert_array_equal(np.asarray(y), np.asarray(x), f"{name} {shape}")
        seen += 1
packed = jnp.asarray([-8, 7, -1, 3, 2], jnp.int4)
back = jax.jit(lambda a: jax.pure_callback(lambda a: np.asarray(a), like(a), a))(packed)
print(seen, np.asarray(back).astype(int).tolist())
print(jax.jit(lambda: jax.pure_callback(lambda: np.float32(3), scalar))())
""")
    assert lines == ["75 [-8, 7, -1, 3, 2]", "3.0"]


def test_ordered_io_callbacks() -> None:
    lines = printed("""
log = []
@jax.jit
def f(x):
    def step(c, i):
        io_callback(lambda i: log.append(int(i)), None, i, ordered=True)
        return jax.lax.cond(i % 2 == 0, lambda c: c + 1, lambda c: c, c), None
    return jax.lax.scan(step, x, jnp.arange(50))[0]
print(f(0), f(0))
jax.effects_barrier()
print(log == list(range(50)) * 2)
""")
    assert lines == ["25 25", "True"]


def test_exceptions_come_with_their_traceback() -> None:
    lines = printed("""
def boom(x):
    raise ValueError("a reason of mine")
def leave(x):
    raise SystemExit(3)
for function in (boom, leave):
    try:
        jax.jit(lambda x: jax.pure_callback(function, scalar, x))(1.0).block_until_ready()
    except Exception as error:
        text = str(error)
        print(type(error).__name__, "calling callback" in text, "a reason of mine" in text)
try:
    wrong = lambda x: np.zeros(7, np.float32)
    jax.jit(lambda x: jax.pure_callback(wrong, scalar, x))(1.0).block_until_ready()
except Exception as error:
    print("shape" in str(error))
print(jax.jit(lambda x: jax.pure_callback(lambda x: x, scalar, x))(4.0))
""")
    assert lines == ["JaxRuntimeError True True", "JaxRuntimeError True False", "True", "4.0"]


def test_large_operands_and_results() -> None:
    lines = printed("""
x = np.arange(16 << 20, dtype=np.float32)
f = jax.jit(lambda x: jax.pure_callback(lambda x: np.asarray(x) + 1, like(x), x))
np.testing.assert_array_equal(f(x), x + 1)
aligned = []
def second(a, b):
    aligned.append(np.asarray(b).ctypes.data % 64)
    return b
g = jax.jit(lambda x: jax.pure_callback(second, like(x), x[:3], x))
np.testing.assert_array_equal(g(x), x)
print(aligned)
""")
    assert lines == ["[0]"]


def test_eight_devices_meet_in_a_collective_after_their_callbacks() -> None:
    lines = printed("""
mesh = Mesh(np.array(jax.devices()), "d")
everyone = threading.Barrier(8)
def meet(x):
    everyone.wait(60)   # all eight calls must be running at the same time
    return np.asarray(x) * 2
@jax.jit
@partial(jax.shard_map, mesh=mesh, in_specs=P("d"), out_specs=P())
def f(x):
    y = jax.pure_callback(meet, jax.ShapeDtypeStruct(x.shape, x.dtype), x)
    return jax.lax.psum(y, "d")
for _ in range(10):
    result = f(jnp.arange(8.0))
print(result)
@partial(jax.jit, out_shardings=NamedSharding(mesh, P("d")))
def g(x):
    jax.debug.print("whole {x}", x=x, ordered=False)
    return x + 1
print(g(jax.device_put(jnp.arange(8), NamedSharding(mesh, P("d")))))
jax.effects_barrier()
""")
    assert lines[0] == "[56.]"
    assert sorted(lines[1:]) == ["[1 2 3 4 5 6 7 8]", "whole [0 1 2 3 4 5 6 7]"]


def test_prints_pending_at_exit_are_printed() -> None:
    lines = printed("""
@jax.jit
def f(x):
    jax.debug.callback(lambda x: (time.sleep(0.05), print("late", x, flush=True)), x)
    return x
for i in range(10):
    f(i)
""")
    assert sorted(lines) == sorted(f"late {i}" for i in range(10))


def test_functions_go_when_their_program_has_gone() -> None:
    lines = printed("""
import gc, weakref
from causeway.client import callbacks
class Big: pass
def make():
    big = Big()
    add = lambda x: (big, np.asarray(x) + 1)[1]
    f = jax.jit(lambda x: jax.pure_callback(add, scalar, x))
    print(f(1.0))
    return weakref.ref(big), f
alive, f = make()
channel, = callbacks._channels.values()
def wait(condition):
    for _ in range(200):
        gc.collect()
        if condition(): return True
        callback_host.tell_relay("stats"); time.sleep(0.05)
    return False
callback_host.tell_relay(f"gone {channel.token} 1")
print(f(2.0), len(channel._groups))       # a worker still has the program
del f
jax.clear_caches(); gc.collect()
print(wait(lambda: not channel._groups), wait(lambda: alive() is None))
""")
    assert lines == ["2.0", "3.0 1", "True True"]


def test_a_forked_child_gets_a_channel_of_its_own() -> None:
    lines = printed("""
import os
from causeway.client import callbacks
jax.jit(lambda x: jax.pure_callback(lambda x: x, scalar, x))(1.0)
before, = callbacks._channels.values()
pid = os.fork()
if pid == 0:
    try:
        after = callbacks._channel(None)
        os._exit(0 if after is not before and after.token != before.token else 1)
    except BaseException:
        os._exit(2)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(jax.jit(lambda x: jax.pure_callback(lambda x: x, scalar, x))(5.0))
""")
    assert lines == ["0", "5.0"]


def test_a_lost_relay_fails_calls_and_does_not_hang() -> None:
    lines = printed("""
begun = threading.Event()
def slow(x):
    begun.set(); time.sleep(0.5); return x
f = jax.jit(lambda x: jax.pure_callback(slow, scalar, x))
def kill():
    begun.wait(30); callback_host.relay.kill()
threading.Thread(target=kill).start()
for _ in range(2):
    try:
        f(1.0).block_until_ready()
        print("no error")
    except Exception as error:
        print("host callback" in str(error))
print(jax.jit(lambda x: x + 1)(1.0))
""")
    assert lines == ["True", "True", "2.0"]


def test_breakpoint_checkify_and_spsolve() -> None:
    lines = printed("""
import io
from jax.experimental import checkify
from jax.experimental.sparse.linalg import spsolve
from jax._src import debugger
out = io.StringIO()
@jax.jit
def f(x):
    debugger.breakpoint(stdin=io.StringIO("p x\\nc\\n"), stdout=out, backend="cli")
    return x + 1
print(f(41.0))
jax.effects_barrier()
print("41." in out.getvalue())
@jax.jit
def g(x):
    checkify.check(x > 0, "must be positive")
    return x
try:
    with jax.disable_jit(False):
        jax.config.update("jax_experimental_unsafe_xla_runtime_errors", True)
        g(-1.0).block_until_ready(); jax.effects_barrier()
    print("no error")
except Exception as error:
    print("must be positive" in str(error))
""")
    assert lines == ["42.0", "True", "True"]


def test_unknown_versions_are_left_alone() -> None:
    lines = printed("""
from causeway.client import callbacks
callbacks._copy = lambda module: (_ for _ in ()).throw(
    callbacks._UnknownLowering("another world"))
print(jax.jit(lambda x: jax.pure_callback(lambda x: x, scalar, x))(7.0))
print(callback_host.tell_relay("stats")["calls"])
""")
    assert lines == ["7.0", "0"]


def test_buffer_callbacks_fill_their_results() -> None:
    lines = printed("""
from jax.experimental.buffer_callback import ExecutionStage, buffer_callback
def both(ctx, out, x, *, scale):
    print(ctx.stage == ExecutionStage.EXECUTE, x.writeable, out["a"].writeable, out["b"].dtype)
    np.asarray(out["a"])[...] = np.asarray(x) * np.asarray(scale)
    np.asarray(out["b"])[...] = np.from_dlpack(x) > 1
out = {"a": jax.ShapeDtypeStruct((3,), np.int32), "b": jax.ShapeDtypeStruct((3,), np.bool_)}
found = jax.jit(buffer_callback(both, out))(jnp.arange(3), scale=np.int32(5))
print(found["a"], found["b"])
def add_one(ctx, out, x):
    print(np.shares_memory(np.asarray(out), np.asarray(x)))
    np.asarray(out)[...] += 1
in_place = buffer_callback(add_one, jax.ShapeDtypeStruct((2,), jnp.bfloat16),
                           input_output_aliases={0: 0}, vmap_method="sequential")
x = jnp.array([1, 2], jnp.bfloat16)
print(in_place(x), x)
print(jax.vmap(in_place)(jnp.zeros((2, 2), jnp.bfloat16)).tolist())
print("calls", callback_host.tell_relay("stats")["calls"])
def asks_for_a_stream(ctx, out, x):
    ctx.stream
try:
    jax.block_until_ready(jax.jit(buffer_callback(asks_for_a_stream, like(x)))(x))
except jax.errors.JaxRuntimeError as error:
    print("GPU context is not available" in str(error))
""")
    assert lines == [
        "True False True bool",
        "[ 0  5 10] [False False  True]",
        "True",
        "[2 3] [1 2]",
        "True",
        "True",
        "[[1.0, 1.0], [1.0, 1.0]]",
        "calls 4",
        "True",
    ]


def test_foreign_pointers_are_refused_by_name() -> None:
    lines = printed("""
from causeway.worker import callbacks
from jax._src.interpreters import mlir
from jax._src.lib.mlir import ir
for target in ("InspectSharding", "CustomSPMDPartitioning", "xla_buffer_python_cpu_callback",
               "xla_ffi_python_cpu_callback", "xla_ffi_python_gpu_callback", "no_such_target",
               "lapack_spotrf_ffi", "Sharding"):
    with mlir.make_ir_context(), ir.Location.unknown():
        module = ir.Module.parse('''module @m { func.func @main(%a: tensor<f32>) -> tensor<f32> {
          %0 = stablehlo.custom_call @''' + target + '''(%a) : (tensor<f32>) -> tensor<f32>
          return %0 : tensor<f32> } }''')
        try:
            callbacks.check_custom_calls(module)
            print("taken", target)
        except ValueError as error:
            print("refused", target, len(str(error)) > 60)
""")
    assert lines[-2:] == ["taken lapack_spotrf_ffi", "taken Sharding"]
    assert [line.split()[::2] for line in lines[:-2]] == [["refused", "True"]] * 6
