"""The manager of an elastic training: snapshots, shrinking, growing, retrying."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh
from pathwaysutils.elastic.manager import ElasticRuntimeError, ScaleUpSignalError

from causeway.elastic import scaling, slices, snapshot
from causeway.elastic.monitor import SliceMonitor

_log = logging.getLogger(__name__)
_Function = TypeVar("_Function", bound=Callable[..., Any])
RetryPolicy = Callable[[int, Exception], bool]


class Manager:
    """Keeps a training going while slices are lost and come back. One thread uses it.

    The names are those of `pathwaysutils.elastic.manager.Manager`, which works on the same cluster.
    What this one adds are snapshots in the cluster's memory, and that it hears of slices at once.

        manager = elastic.Manager(snapshot_period=10, max_elastic_down_event_count=5)
        step, state = 0, first_state(manager.active_devices)
        manager.maybe_snapshot(step, state, force=True)
        while step < steps:
            try:
                state = train_step(state, batches[step])
                step += 1
                manager.maybe_snapshot(step, state)
                if (resized := manager.maybe_reshard_up(step, resume, state)) is not None:
                    step, state = resized
            except jax.errors.JaxRuntimeError as error:
                step, state = manager.maybe_reshard_down(error, resume)

    where `resume` builds a mesh over `manager.active_devices` and returns what
    `manager.get_resharded_snapshot(mesh)` gives.
    """

    def __init__(
        self,
        devices: Sequence[jax.Device] | None = None,
        *,
        snapshot_period: int = 1,
        reshard_check_period: int = 1,
        max_elastic_down_event_count: int | None = None,
        max_reshard_retry_count: int = 3,
        snapshot_memory_kind: str | None = None,
    ) -> None:
        """`*_period` are in steps; the two limits bound the losses survived in all, and the
        further losses while one is being recovered from. `snapshot_memory_kind` such as
        "pinned_host" keeps snapshots out of the devices' own memory."""
        if snapshot_period < 1 or reshard_check_period < 1:
            raise ValueError("snapshot_period and reshard_check_period must be positive")
        self.slice_to_devices = slices.slice_to_devices(devices)
        self.all_slice_indices: Set[int] = frozenset(self.slice_to_devices)
        self.snapshot_period = snapshot_period
        self.reshard_check_period = reshard_check_period
        self.max_elastic_down_event_count = max_elastic_down_event_count
        self.max_reshard_retry_count = max_reshard_retry_count
        self.elastic_down_event_count = 0
        self._memory_kind = snapshot_memory_kind
        self._newest: snapshot.Snapshot | None = None
        self._proven: snapshot.Snapshot | None = None  # its copy is known to have been made
        self._monitor = SliceMonitor(self.slice_to_devices)
        self._active = slices.active_slices(self.slice_to_devices)

    # ------------------------------------------------------------ slices

    @property
    def total_slice_count(self) -> int:
        return len(self.slice_to_devices)

    @property
    def active_slice_indices(self) -> frozenset[int]:
        """The slices that the training uses."""
        return self._active

    @active_slice_indices.setter
    def active_slice_indices(self, value: Set[int]) -> None:
        self._active = frozenset(value)

    @property
    def active_slice_count(self) -> int:
        return len(self._active)

    @property
    def inactive_slice_indices(self) -> frozenset[int]:
        return frozenset(self.all_slice_indices - self._active)

    @property
    def available_inactive_slices(self) -> frozenset[int]:
        """Slices that are up and not used. Asks them, when something happened since last time."""
        return self._monitor.available(self.inactive_slice_indices)

    @property
    def active_devices(self) -> list[jax.Device]:
        """The devices of the active slices, slice by slice: what to make the next mesh of."""
        return [
            device for index in sorted(self._active) for device in self.slice_to_devices[index]
        ]

    @property
    def default_device(self) -> jax.Device:
        if not self._active:
            raise ValueError("no slice is active: wait for one with elastic_retry, or restore one")
        return self.active_devices[0]

    def scale_by_active_slices(self, x: int | float) -> int | float:
        """`x` (for all slices) times the share of slices that are active; an int must divide."""
        if isinstance(x, float):
            return x * self.active_slice_count / self.total_slice_count
        quotient, remainder = divmod(x * self.active_slice_count, self.total_slice_count)
        if remainder:
            raise ValueError(
                f"{x} on {self.active_slice_count} of {self.total_slice_count} slices is no whole "
                f"number: use a multiple of {self.total_slice_count}"
            )
        return quotient

    def scaled(
        self, batch_size: int, learning_rate: float, rule: str = "linear"
    ) -> scaling.Scaled:
        """Batch size and learning rate for the active slices; see `scaling.scale`."""
        return scaling.scale(
            batch_size, learning_rate, self.active_slice_count, self.total_slice_count, rule
        )

    # ------------------------------------------------------------ snapshots

    def maybe_snapshot(
        self,
        step: int,
        snapshot_jax_arrays: Any,
        snapshot_controller: Any = None,
        *,
        force: bool = False,
        block: bool = False,
    ) -> bool:
        """Copies the state when `step` is due; True when it did.

        `snapshot_jax_arrays` is a tree of jax.Arrays and may be donated afterwards.
        `snapshot_controller` is any Python value that belongs to it (a position in the data, say);
        it is kept by reference. The call does not wait for the copy unless `block` is set. The
        snapshot before stays until the new one is known to have been made.
        """
        if not force and step % self.snapshot_period:
            return False
        if self._newest is not None and self._newest.complete():
            self._proven = self._newest
        self._newest = None
        alive = {index: self.slice_to_devices[index] for index in sorted(self._active)}
        self._newest = snapshot.take(
            step, snapshot_jax_arrays, snapshot_controller, alive, self._memory_kind
        )
        if block and self._newest.complete():
            self._proven = self._newest
        return True

    def get_resharded_snapshot(self, target: Mesh | Any) -> tuple[int, Any, Any]:
        """(step, arrays, controller) of the newest snapshot that is left, fresh on `target`.

        `target` is a mesh, on which each array is cut by its old PartitionSpec, or a tree of
        shardings. Throws ElasticRuntimeError when no snapshot survived.
        """
        for candidate in (self._newest, self._proven):
            if candidate is not None and candidate.complete():
                self._newest = self._proven = candidate
                return candidate.step, candidate.restore(target), candidate.controller
        raise ElasticRuntimeError(
            "no snapshot is left in the cluster: none was taken, or all slices that held a copy "
            "were lost at once. Restore from a checkpoint in storage"
        )

    # ------------------------------------------------------------ events

    def maybe_reshard_down(
        self,
        error: Exception,
        elastic_handler: Callable[..., Any],
        handler_args: Sequence[Any] = (),
        handler_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Goes on with the slices that are left: what `elastic_handler` returns.

        An error that is not the loss of a slice is thrown again. Losses during the handler are
        retried. Throws ElasticRuntimeError beyond the limits, or when no slice is left.
        """
        retries = 0
        while True:
            if not slices.is_slice_loss(error):
                raise error
            self._count_loss(error)
            if retries > self.max_reshard_retry_count:
                raise ElasticRuntimeError(
                    f"slices were lost {retries} times while going on without one"
                ) from error
            self._active = slices.active_slices(self.slice_to_devices)
            if not self._active:
                raise ElasticRuntimeError("no slice is left to go on with") from error
            _log.warning("going on with slices %s: %s", sorted(self._active), error)
            try:
                return elastic_handler(*handler_args, **(handler_kwargs or {}))
            except jax.errors.JaxRuntimeError as another:
                error, retries = another, retries + 1

    def maybe_reshard_up(
        self,
        step: int,
        elastic_handler: Callable[..., Any],
        snapshot_jax_arrays: Any,
        snapshot_controller: Any = None,
        handler_args: Sequence[Any] = (),
        handler_kwargs: Mapping[str, Any] | None = None,
    ) -> Any | None:
        """Takes slices back that are up again: what `elastic_handler` returns, None without news.

        The state is copied first, so that the handler finds it at this very step.
        """
        if step % self.reshard_check_period:
            return None
        found = self.available_inactive_slices
        if not found:
            return None
        self.maybe_snapshot(step, snapshot_jax_arrays, snapshot_controller, force=True, block=True)
        before, self._active = self._active, self._active | found
        _log.info("taking slices %s back", sorted(self._active - before))
        try:
            return elastic_handler(*handler_args, **(handler_kwargs or {}))
        except jax.errors.JaxRuntimeError as error:
            return self.maybe_reshard_down(error, elastic_handler, handler_args, handler_kwargs)

    def elastic_retry(
        self,
        max_retries: int | None = None,
        minimum_slice_count: int | None = None,
        poll_interval: float = 0.1,
        timeout: float | None = None,
        pre_callback: Callable[..., Any] | None = None,
        on_elastic_event_callback: Callable[..., Any] | None = None,
        retry_policy: RetryPolicy | None = None,
    ) -> Callable[[_Function], _Function]:
        """Decorator: runs the function again after the loss of a slice, or a ScaleUpSignalError.

        As in pathwaysutils: each attempt waits for `minimum_slice_count` slices (all, when None),
        at most `timeout` seconds (TimeoutError); the function looks at `active_slice_indices`, and
        may throw ScaleUpSignalError when `available_inactive_slices` is not empty.
        """
        if max_retries is not None and retry_policy is not None:
            raise ValueError("give either max_retries or retry_policy")
        wanted = self.total_slice_count if minimum_slice_count is None else minimum_slice_count

        def allowed(attempt: int, error: Exception) -> bool:
            if retry_policy is not None:
                return retry_policy(attempt, error)
            return max_retries is None or attempt < max_retries

        def decorate(function: _Function) -> _Function:
            @functools.wraps(function)
            def run(*args: Any, **kwargs: Any) -> Any:
                attempt = 1
                while True:
                    self._await_slices(wanted, poll_interval, timeout)
                    if pre_callback is not None:
                        pre_callback()
                    try:
                        with jax.default_device(self.default_device):
                            return function(*args, **kwargs)
                    except (ScaleUpSignalError, jax.errors.JaxRuntimeError) as error:
                        failure = error
                    if not isinstance(failure, ScaleUpSignalError):
                        if not slices.is_slice_loss(failure):
                            raise failure
                        _log.warning("attempt %d ends with a loss: %s", attempt, failure)
                        self._count_loss(failure)
                    if on_elastic_event_callback is not None:
                        on_elastic_event_callback()
                    if not allowed(attempt, failure):
                        raise ElasticRuntimeError(f"attempt {attempt} failed") from failure
                    failure.__traceback__ = None  # it holds the arrays of the failed attempt
                    attempt += 1

            return run  # type: ignore[return-value]

        return decorate

    def close(self) -> None:
        """Ends the watch for events."""
        self._monitor.close()

    def _count_loss(self, error: Exception) -> None:
        limit = self.max_elastic_down_event_count
        if limit is not None and self.elastic_down_event_count >= limit:
            raise ElasticRuntimeError(
                f"slices were lost more than {limit} times, which is max_elastic_down_event_count"
            ) from error
        self.elastic_down_event_count += 1

    def _await_slices(self, count: int, poll_interval: float, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._active = slices.active_slices(self.slice_to_devices)
            if len(self._active) >= count:
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(
                    f"{len(self._active)} of {count} slices are up after {timeout} s: "
                    "restore one, or lower minimum_slice_count"
                )
            time.sleep(poll_interval)
