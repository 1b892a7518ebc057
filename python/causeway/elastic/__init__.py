"""Training that goes on while slices are lost and come back.

`Manager` keeps snapshots in the cluster's memory and rides over losses, `salvage` puts together
what live replicas still hold, `watch` tells of losses and returns as they happen.
"""

from __future__ import annotations

from pathwaysutils.elastic.manager import ElasticRuntimeError, ScaleUpSignalError

from causeway.elastic.events import Event, EventStream, watch
from causeway.elastic.manager import Manager
from causeway.elastic.salvage import Salvaged, salvage
from causeway.elastic.scaling import Scaled, scale
from causeway.elastic.slices import active_slices, is_slice_loss, slice_to_devices

__all__ = [
    "ElasticRuntimeError",
    "Event",
    "EventStream",
    "Manager",
    "Salvaged",
    "ScaleUpSignalError",
    "Scaled",
    "active_slices",
    "is_slice_loss",
    "salvage",
    "scale",
    "slice_to_devices",
    "watch",
]
