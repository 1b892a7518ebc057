"""Programs that are lowered, compiled, asked about and exported before they run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P


def _compiled(env):
    sharding = NamedSharding(env.mesh((8,), ("x",)), P("x"))
    x = jax.device_put(np.arange(32, dtype=np.float32).reshape(8, 4), sharding)
    lowered = jax.jit(lambda a: (jnp.dot(a, a.T), a.sum())).lower(x)
    return lowered, lowered.compile(), x


def test_run(jax_env, record):
    _, compiled, x = _compiled(jax_env)
    for out in (compiled(x), compiled(x)):
        record("product", out[0], exact=False)
        record("sum", out[1], exact=False)


def test_texts(jax_env):
    lowered, compiled, _ = _compiled(jax_env)
    assert "stablehlo.dot_general" in lowered.as_text()
    assert "HloModule" in compiled.as_text()


def test_facts(jax_env, record):
    _, compiled, x = _compiled(jax_env)
    record("flops", compiled.cost_analysis()["flops"])
    memory = compiled.memory_analysis()
    record("bytes", [memory.argument_size_in_bytes, memory.output_size_in_bytes])
    (args, _) = compiled.input_shardings
    assert args[0].is_equivalent_to(x.sharding, 2)
    assert all(len(s.device_set) == 8 for s in compiled.output_shardings)
    record("tree", str(compiled.out_tree))


def test_lower_from_shapes(jax_env, record):
    sharding = NamedSharding(jax_env.mesh((8,), ("x",)), P("x"))
    shape = jax.ShapeDtypeStruct((16,), np.float32, sharding=sharding)
    compiled = jax.jit(lambda a: a * 2).lower(shape).compile()
    record("out", compiled(jax.device_put(np.arange(16, dtype=np.float32), sharding)))
    record("eval_shape", str(jax.eval_shape(lambda a: a.sum(0), shape)))


def test_compiler_options(record):
    program = jax.jit(lambda a: a + 1).lower(jnp.ones(3))
    compiled = program.compile(compiler_options={"xla_cpu_enable_fast_math": False})
    record("out", compiled(jnp.ones(3)))
    with pytest.raises(Exception, match="no_such_option"):
        program.compile(compiler_options={"no_such_option": True})


def test_export_round_trip(jax_env, record):
    exported = jax.export.export(jax.jit(lambda a: jnp.sin(a) * 2))(
        jax.ShapeDtypeStruct((4,), np.float32)
    )
    again = jax.export.deserialize(exported.serialize())
    record("platforms", list(again.platforms))
    record("out", jax.jit(again.call)(jnp.arange(4.0)), exact=False)


def test_export_with_unknown_size(record):
    (size,) = jax.export.symbolic_shape("n")
    exported = jax.export.export(jax.jit(lambda a: a.sum() * a.shape[0]))(
        jax.ShapeDtypeStruct((size,), np.float32)
    )
    for n in (1, 5, 9):
        record(f"{n}", exported.call(jnp.ones(n)), exact=False)


def test_export_of_a_sharded_program(jax_env, record):
    sharding = NamedSharding(jax_env.mesh((8,), ("x",)), P("x"))
    shape = jax.ShapeDtypeStruct((16, 2), np.float32, sharding=sharding)
    exported = jax.export.export(jax.jit(lambda a: a - a.mean()))(shape)
    assert exported.nr_devices == 8
    again = jax.export.deserialize(exported.serialize())
    x = jax.device_put(np.arange(32, dtype=np.float32).reshape(16, 2), sharding)
    record("out", jax.jit(again.call)(x), exact=False)


def test_trace_counts(record):
    traced = []

    @jax.jit
    def program(x):
        traced.append(x.shape)
        return x + 1

    for n in (2, 2, 3, 2):
        program(jnp.ones(n))
    record("traces", len(traced))
    program.clear_cache()
    program(jnp.ones(2))
    record("after clearing", len(traced))
