"""Runs a program as without Causeway's package: the backend is registered by hand."""

import runpy
import sys

import jax
from jax._src import xla_bridge
from jax.extend.backend import ifrt_proxy


def _make_client():
    target = jax.config.read("jax_backend_target")
    return ifrt_proxy.get_client(target, ifrt_proxy.ClientConnectionOptions())


xla_bridge.register_backend_factory("proxy", _make_client, priority=-1)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
