"""The plugin that JAX loads by itself: when it acts, what it installs, how it is switched off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

# Discovers the plugins as backends() does, without connecting anywhere.
DISCOVER = """
import os
from jax._src import xla_bridge as xb
xb._discover_and_register_pjrt_plugins()
from causeway import client
print(",".join(client._installed), "proxy" in xb._backend_factories,
      os.environ.get("IFRT_PROXY_USE_INSECURE_GRPC_CREDENTIALS"))
"""


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    base = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "IFRT_", "CAUSEWAY"))}
    base |= {"PYTHONPATH": str(ROOT / "python"), **env}
    return subprocess.run(
        [sys.executable, "-c", code], env=base, capture_output=True, text=True, timeout=90,
        stdin=subprocess.DEVNULL, check=False,
    )


def printed(code: str, **env: str) -> str:
    done = run(code, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_is_found_without_an_import_and_registers_the_backend() -> None:
    words = printed(DISCOVER, JAX_PLATFORMS="proxy").split()
    assert words[1:] == ["True", "true"]
    assert words[0].startswith("credentials,backend,")
    assert printed(DISCOVER, JAX_PLATFORMS="proxy,cpu").split()[1] == "True"


def test_does_nothing_for_other_platforms() -> None:
    assert printed(DISCOVER, JAX_PLATFORMS="cpu") == "False None"
    assert printed("import jax; print(jax.devices()[0].platform)", JAX_PLATFORMS="cpu") == "cpu"


def test_keeps_the_credentials_that_the_user_chose() -> None:
    chosen = {"IFRT_PROXY_USE_INSECURE_GRPC_CREDENTIALS": "false", "JAX_PLATFORMS": "proxy"}
    assert printed(DISCOVER, **chosen).split()[2] == "false"


def test_patches_have_switches() -> None:
    proxy = {"JAX_PLATFORMS": "proxy"}
    names = printed(DISCOVER, CAUSEWAY_CLIENT_PATCHES="-malloc,-timer-slack", **proxy).split()[0]
    assert "malloc" not in names and "timer-slack" not in names and "backend" in names
    assert printed(DISCOVER, CAUSEWAY_CLIENT_PATCHES="0", **proxy) == "False None"
    done = run(DISCOVER, CAUSEWAY_CLIENT_PATCHES="-mallok", **proxy)
    assert "mallok not understood" in done.stderr and "malloc" in done.stdout


def test_an_empty_target_is_explained() -> None:
    done = run("import jax; jax.devices()", JAX_PLATFORMS="proxy")
    assert done.returncode != 0
    assert "JAX_BACKEND_TARGET is empty" in done.stderr


FAKE_CONNECTION = """
import jax
from jax.extend.backend import ifrt_proxy
import os
from causeway.client import timer_slack
def current():
    return timer_slack._current(), os.environ.get("GRPC_EXPERIMENTS")
before = current()
seen = []
def fake(target, options):
    seen.append((target, *current()))
    raise RuntimeError("no cluster here")
ifrt_proxy.get_client = fake
{more}
try:
    jax.devices()
except RuntimeError as error:
    assert "no cluster here" in str(error), error
expected = ("grpc://127.0.0.1:1", 1_000_000, "-event_engine_client")
assert seen == [expected], seen
assert current() == before, (current(), before)
print("good")
"""


@pytest.mark.parametrize(
    "more",
    ["", "import pathwaysutils; pathwaysutils.initialize()",
     "from jax._src import xla_bridge as xb; xb._discover_and_register_pjrt_plugins()\n"
     "import pathwaysutils; pathwaysutils.initialize()"],
    ids=["alone", "pathwaysutils first", "pathwaysutils last"],
)
def test_the_connection_is_made_so_that_its_threads_wake_seldom(more: str) -> None:
    code = FAKE_CONNECTION.format(more=more)
    env = {"JAX_PLATFORMS": "proxy", "JAX_BACKEND_TARGET": "grpc://127.0.0.1:1"}
    assert printed(code, **env) == "good"


def test_a_gpu_backend_answers_to_its_platform() -> None:
    code = """
import types
from jax._src import xla_bridge as xb
from causeway.client import gpu_alias
gpu_alias.install()
(alias,) = xb._backend_initialization_hooks[-1:]
def client(platform, kind):
    return types.SimpleNamespace(platform=platform, runtime_type=kind)
alias(client("cpu", "proxy/pathways"))
alias(client("cuda", "cuda"))
assert not xb._backends, xb._backends
remote = client("cuda", "proxy/pathways")
alias(remote)
alias(client("cuda", "proxy/other"))
assert xb._backends == {"cuda": remote}
"""
    assert printed(code, JAX_PLATFORMS="proxy") == ""


def test_views_that_run_backwards_arrive_as_copies() -> None:
    code = """
import numpy as np, jax
from jaxlib import xla_client
seen = []
original = xla_client.batched_device_put
def spy(aval, sharding, shards, devices, *rest, **named):
    seen.extend(shards)
    return original(aval, sharding, shards, devices, *rest, **named)
xla_client.batched_device_put = spy
from causeway.client import strides
strides.install(); strides.install()
x = np.arange(12.0, dtype=np.float32).reshape(3, 4)
views = [x[::-1], x[:, ::-1], np.broadcast_to(x[0], (5, 4)), x.T, x]
for view in views:
    np.testing.assert_array_equal(np.asarray(jax.device_put(view, jax.devices()[0])), view)
assert len(seen) == len(views), len(seen)
assert all(min(s.strides) > 0 for s in seen)
assert np.shares_memory(seen[-1], x)  # what needs no copy is not copied
"""
    assert printed(code, JAX_PLATFORMS="cpu") == ""


def test_local_devices_keep_their_memory_stats() -> None:
    code = """
import jax
from causeway.client import memory_stats
before = jax.devices()[0].memory_stats()
memory_stats.install(); memory_stats.install()
assert jax.devices()[0].memory_stats() == before
"""
    assert printed(code, JAX_PLATFORMS="cpu") == ""
