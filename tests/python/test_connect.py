"""connect(): afterwards environment, JAX's configuration and its backends are as before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cli_harness import Cli

# The fakes speak no IFRT: a stand-in client takes the connection's place, devices and all.
PRELUDE = """
import os, pathlib, jax
from jax._src import xla_bridge as xb
import causeway
made = []
class Device:
    platform = "cpu"; device_kind = "fake"; process_index = 0; host_id = 0
    def __init__(self, index): self.id = index; self.slice_index = index // 2
class Client:
    platform = "cpu"; runtime_type = "proxy/fake"; platform_version = ""
    def __init__(self): self.all = [Device(i) for i in range(4)]
    def devices(self): return self.all
    def local_devices(self): return self.all
    def device_count(self): return 4
    def local_device_count(self): return 4
    def process_index(self): return 0
    def host_id(self): return 0
from jax.extend.backend import ifrt_proxy
def fake(target, options):
    made.append(target)
    return Client()
ifrt_proxy.get_client = fake
def facts():
    config = jax.config.jax_platforms, jax.config.read("jax_backend_target")
    return dict(os.environ), config
"""


def run(cli: Cli, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code], env=cli.env, capture_output=True, text=True,
        timeout=90, stdin=subprocess.DEVNULL, check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_explicit_target_and_everything_restored(cli: Cli) -> None:
    run(cli, """
assert jax.devices()[0].platform == "cpu" and jax.devices()[0].device_kind == "cpu"
before = facts()
with causeway.connect("grpc://127.0.0.1:1") as cluster:
    assert made == ["grpc://127.0.0.1:1"]
    assert os.environ["JAX_BACKEND_TARGET"] == "grpc://127.0.0.1:1"
    assert [d.id for d in cluster.devices] == [0, 1, 2, 3] and not cluster.owned
    assert {k: len(v) for k, v in cluster.slices.items()} == {0: 2, 1: 2}
    assert "4 fake devices in 2 slices" in repr(cluster)
    assert "<th>slice 1</th>" in cluster._repr_html_()
    import rich.console, io
    out = io.StringIO()
    rich.console.Console(file=out).print(cluster)
    assert "2 3" in out.getvalue()
assert facts() == before
assert jax.devices()[0].device_kind == "cpu"
try:
    with causeway.connect("grpc://127.0.0.1:2"):
        raise KeyError("from the block")
except KeyError:
    pass
assert facts() == before and made[-1] == "grpc://127.0.0.1:2"
""")


def test_uses_the_running_cluster(cli: Cli) -> None:
    target = cli.up()["target"]
    printed = run(cli, """
with causeway.connect() as cluster:
    print(cluster.target, cluster.owned)
""")
    assert printed == f"{target} False\n"
    assert cli.ok("status")["ok"]


def test_starts_one_when_none_runs_and_ends_it(cli: Cli) -> None:
    printed = run(cli, """
root = pathlib.Path(os.environ["CAUSEWAY_STATE_DIR"])
with causeway.connect(slices=2, devices_per_host=2) as cluster:
    print(cluster.owned, len(list(root.glob("*/state.json"))))
print(list(root.iterdir()))
""")
    assert printed == "True 1\n[]\n"


def test_a_target_excludes_a_shape(cli: Cli) -> None:
    run(cli, """
try:
    with causeway.connect("grpc://127.0.0.1:1", slices=2):
        pass
except ValueError as error:
    assert "leave out" in str(error)
else:
    raise AssertionError
""")


def test_importing_the_package_imports_nothing_heavy(cli: Cli) -> None:
    code = "import sys, causeway, causeway.supervisor.supervisor, causeway.cluster.launcher;" \
           "print([m for m in ('jax', 'numpy', 'typer', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=cli.env, capture_output=True,
                          text=True, check=True, timeout=60, cwd=Path("/"))
    assert done.stdout == "[]\n"
