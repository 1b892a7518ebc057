"""The supervisor's loop: starts the head, then the workers; restarts, kills and ends them."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import time
from pathlib import Path
from typing import Any

from causeway.cluster import environment, head_api, paths, processes, state
from causeway.cluster.options import ClusterOptions
from causeway.supervisor import control_socket
from causeway.supervisor.child import Child

HEAD_READY_SECONDS = 60.0
GRACE_SECONDS = 10.0  # between SIGTERM and SIGKILL
_IDLE_SECONDS = 1.0
_BUSY_SECONDS = 0.02
_ROTATE_SECONDS = 5.0


class Supervisor:
    """Owns one cluster from start to end. One thread; all work happens in `run`."""

    def __init__(
        self, folder: Path, options: ClusterOptions, owner: tuple[int, int | None] | None = None
    ) -> None:
        self._folder = folder
        self._options = options
        self._owner = owner  # the cluster ends when this process does
        self._env = environment.for_server(os.environ)
        self._ready_file = folder / "ready.json"
        self._head = Child("head", self._head_command(), self._env, folder / "logs" / "head.log")
        self._workers: list[Child] = []
        self._state = state.ClusterState(
            options=options,
            pid=os.getpid(),
            started=processes.start_time(os.getpid()),
            # An address that means "all of this machine's" is none to connect to.
            host="127.0.0.1" if options.host in ("0.0.0.0", "::") else options.host,
            created_at=time.time(),
        )
        self._stop = False
        self._head_deadline = 0.0
        self._next_rotation = 0.0

    def run(self) -> None:
        """Returns when the cluster has been ended and its state removed."""
        self._ready_file.unlink(missing_ok=True)
        listener = control_socket.listen(self._folder)
        wake = self._catch_signals()
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            try:
                self._head.start()
                self._head_deadline = time.monotonic() + HEAD_READY_SECONDS
                self._write_state()
                while not self._stop:
                    for key, _ in selector.select(self._pause()):
                        if key.fileobj is listener:
                            self._serve(listener)
                        else:
                            with contextlib.suppress(BlockingIOError):
                                wake.recv(4096)
                    if self._tick():
                        self._write_state()
            finally:
                # Whatever went wrong in here, no process may be left without an owner.
                listener.close()
                self._end_all()
                state.remove(self._folder)

    # ------------------------------------------------------------ commands

    def _head_command(self) -> list[str]:
        options = self._options
        command = [
            str(paths.head_binary()),
            f"--proxy-port={options.proxy_port}",
            f"--server-port={options.server_port}",
            f"--ops-port={options.ops_port}",
            f"--host={options.host}",
            f"--slices={options.slices}",
            f"--hosts-per-slice={options.hosts_per_slice}",
            f"--devices-per-host={options.devices_per_host}",
            f"--platform={options.platform}",
            f"--announce-slices={options.announce_slices}",
            f"--ready-file={self._ready_file}",
        ]
        cache = paths.compile_cache_dir(options.compile_cache)
        if cache:
            command.append(f"--compile-cache={cache}")
            command.append(f"--compile-cache-bytes={options.compile_cache_bytes}")
        if options.transfer_checksums:
            command.append("--transfer-checksums=true")
        if options.shared_dir:
            command.append(f"--shared-dir={options.shared_dir}")
        return command

    def _worker_command(self, number: int) -> list[str]:
        """Numbers from `workers` on are spares: without a place of their own."""
        options = self._options
        port = options.worker_port + number if options.worker_port else 0
        place = ["--worker", str(number)] if number < options.workers else []
        return [
            *paths.worker_command(),
            "--head",
            f"{self._state.host}:{self._state.server_port}",
            *place,
            # A restarted one may find its place taken by a spare, and is a spare then.
            *(["--spare"] if options.spares else []),
            "--devices",
            str(options.devices_per_host),
            "--platform",
            options.platform,
            "--port",
            str(port),
        ]

    # ------------------------------------------------------------ the loop

    def _tick(self) -> bool:
        """Does what is due; True when the state changed."""
        changed = False
        if self._owner and not processes.is_alive(*self._owner):
            self._stop = True
            return False
        if self._head.reap() or (self._state.phase != "failed" and not self._head.running):
            # A head that is gone took the sessions with it; nothing here can bring them back.
            self._state.phase = "failed"
            self._state.reason = f"the head ended: {self._head.record.reason}"
            changed = True
        if self._state.phase == "starting":
            changed |= self._notice_ready_head()
        for child in self._workers:
            if child.reap():
                changed = True
                if child.record.phase == "exited" and self._head.running:
                    child.plan_restart()
            due = child.next_start
            if due is not None and due <= time.monotonic() and self._head.running:
                child.start()
                changed = True
        if time.monotonic() >= self._next_rotation:
            self._next_rotation = time.monotonic() + _ROTATE_SECONDS
            for child in [self._head, *self._workers]:
                child.rotate_log()
        return changed

    def _notice_ready_head(self) -> bool:
        try:
            ready = json.loads(self._ready_file.read_text())
            self._state.proxy_port = int(ready["proxy_port"])
            self._state.server_port = int(ready["server_port"])
            self._state.ops_port = int(ready["ops_port"])
        except (OSError, ValueError, KeyError, TypeError):
            if time.monotonic() < self._head_deadline:
                return False
            self._state.phase = "failed"
            self._state.reason = f"the head was not ready within {HEAD_READY_SECONDS:.0f} s"
            self._head.signal(signal.SIGKILL)
            return True
        self._state.phase = "running"
        options = self._options
        for number in range(options.workers + options.spares):
            spare = number - options.workers
            role = f"worker-{number}" if spare < 0 else f"spare-{spare}"
            log = self._folder / "logs" / f"{role}.log"
            child = Child(role, self._worker_command(number), self._env, log)
            self._workers.append(child)
            child.start()
        return True

    def _pause(self) -> float:
        if self._state.phase == "starting" or any(child.lingers for child in self._workers):
            return _BUSY_SECONDS
        planned = [child.next_start for child in self._workers if child.next_start is not None]
        if planned and self._head.running:
            return min(max(min(planned) - time.monotonic(), 0.0), _IDLE_SECONDS)
        return _IDLE_SECONDS

    def _write_state(self) -> None:
        self._state.processes = [child.record for child in [self._head, *self._workers]]
        state.write(self._folder, self._state)

    # ------------------------------------------------------------ control socket

    def _serve(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(2.0)
            try:
                request = control_socket.read_line(connection)
                control_socket.write_line(connection, self._answer(request))
            except (OSError, ValueError, control_socket.SupervisorUnreachable):
                return  # the caller went away or spoke nonsense; the cluster goes on

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        command = request.get("command")
        if command == "down":
            self._stop = True
            return {"ok": True, "pid": os.getpid()}
        if command in ("kill", "restore"):
            try:
                chosen = self._options.workers_of_slice(int(request.get("slice", -1)))
                if len(self._workers) < self._options.workers:
                    return {"ok": False, "error": "the cluster has not started yet"}
                children = self._children_at(chosen) if command == "kill" else self._down(chosen)
            except Exception as error:
                return {"ok": False, "error": str(error)}
            done = self._kill(children) if command == "kill" else self._restore(children)
            self._write_state()
            return {"ok": True, "workers": list(chosen), **done}
        return {"ok": False, "error": f"unknown command {command!r}"}

    def _children_at(self, places: range) -> list[Child]:
        """Who fills these places now: where there are spares, only the head knows."""
        if not self._options.spares:
            return [self._workers[place] for place in places]
        workers = head_api.status(self._state.ops_url)["workers"]
        pids = {entry["pid"] for entry in workers if entry["id"] in places and entry["alive"]}
        return [child for child in self._workers if child.record.pid in pids]

    def _down(self, places: range) -> list[Child]:
        """Who is to be started again: with spares, all that are kept down."""
        if not self._options.spares:
            return [self._workers[place] for place in places]
        return [child for child in self._workers if child.record.phase == "kept_down"]

    def _kill(self, children: list[Child]) -> dict[str, Any]:
        pids = [child.record.pid for child in children if child.running]
        at = time.time()
        for child in children:
            child.keep_down()
            child.signal(signal.SIGKILL)
        for child in children:
            child.wait_ended(5.0)
        return {"pids": pids, "time": at}

    def _restore(self, children: list[Child]) -> dict[str, Any]:
        started = []
        for child in children:
            child.reap(at_once=True)
            if child.running:
                continue
            child.release()
            child.start()
            started.append(child.record.pid)
        return {"pids": started}

    # ------------------------------------------------------------ the end

    def _catch_signals(self) -> socket.socket:
        receive, send = socket.socketpair()
        receive.setblocking(False)
        send.setblocking(False)
        self._wake_send = send  # kept open as long as the supervisor lives
        signal.set_wakeup_fd(send.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_stop_signal)
        return receive

    def _on_stop_signal(self, *_: object) -> None:
        self._stop = True

    def _end_all(self) -> None:
        self._state.phase = "stopping"
        with contextlib.suppress(OSError):
            self._write_state()
        children = [*self._workers, self._head]
        for child in children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for child in children:
            if not child.wait(max(deadline - time.monotonic(), 0.0)):
                child.signal(signal.SIGKILL)
                child.wait(5.0)
