"""lowered.cost_analysis(): computed by the local CPU client, which can read the module as well."""

from __future__ import annotations

from typing import Any

from causeway.client.repairs_common import is_remote, local_cpu

_INSTALLED = "_causeway_cost_analysis"


def install() -> None:
    from jaxlib import _jax

    original = _jax.hlo_module_cost_analysis
    if hasattr(original, _INSTALLED):
        return

    def hlo_module_cost_analysis(client: Any, module: Any) -> Any:
        return original(local_cpu().client if is_remote(client) else client, module)

    setattr(hlo_module_cost_analysis, _INSTALLED, True)
    _jax.hlo_module_cost_analysis = hlo_module_cost_analysis
