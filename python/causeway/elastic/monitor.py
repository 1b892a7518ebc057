"""Whether slices that the training does not use are up again."""

from __future__ import annotations

import logging
from collections.abc import Set

from causeway.cluster.head_api import HeadUnreachable
from causeway.elastic import events, slices

_log = logging.getLogger(__name__)


class SliceMonitor:
    """Asks the head whether anything happened, and the slices themselves only then.

    Where the head's operations port is out of reach, the slices are asked each time.
    """

    def __init__(self, slice_to_devices: slices.SliceToDevices) -> None:
        self._slices = slice_to_devices
        self._stream: events.EventStream | None = None
        self._stale = True  # something may have happened since the slices were asked
        self._found: frozenset[int] = frozenset()
        try:
            self._stream = events.watch()
        except (HeadUnreachable, RuntimeError) as error:
            _log.info("no event stream, slices will be probed: %s", error)

    def available(self, inactive: Set[int]) -> frozenset[int]:
        """Those of the slices `inactive` that are up."""
        if not inactive:
            self._stale = True  # whoever becomes inactive later has to be asked
            return frozenset()
        if self._stream is not None:
            try:
                self._stale = bool(self._stream.poll()) or self._stale
            except HeadUnreachable as error:
                _log.warning("the event stream has ended, slices will be probed: %s", error)
                self._stream = None
        if self._stale or self._stream is None:
            asked = {index: self._slices[index] for index in sorted(inactive)}
            self._found = slices.active_slices(asked)
            self._stale = False
        return self._found & frozenset(inactive)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
