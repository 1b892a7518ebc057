"""Thousands of steps and hundreds of sessions leave nothing behind.

CAUSEWAY_LONG_TESTS=1 runs the long forms: 10,000 steps and 1,000 sessions.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest

LONG = bool(os.environ.get("CAUSEWAY_LONG_TESTS"))
STEPS = 10_000 if LONG else 3_000
SESSIONS = 1_000 if LONG else 200
BOUND = 1800 if LONG else 200  # seconds; a long run may share its machine with others
MIB = 1 << 20


def _rss(pids: dict[str, int]) -> dict[str, int]:
    pages = {role: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for role, pid in
             pids.items()}
    return {role: count * os.sysconf("SC_PAGE_SIZE") for role, count in pages.items()}


def _tell(what: str, memory: dict[str, int], grown: dict[str, int]) -> None:
    """What a report needs: `pytest -s` shows it."""
    figures = [f"{role} {memory[role] / MIB:.1f} {grown[role] / MIB:+.2f}" for role in memory]
    print(f"resident MiB before, and more after {what}: {', '.join(figures)}")


def _open_files(pids: dict[str, int]) -> dict[str, int]:
    return {role: len(list(Path(f"/proc/{pid}/fd").iterdir())) for role, pid in pids.items()}


@pytest.mark.slow
@pytest.mark.timeout_seconds(BOUND + 60)
def test_steps_leave_nothing_behind(shared: Any) -> None:
    client = shared.client()
    client.do(
        """
        w = jax.device_put(np.ones((8, 16), np.float32), rows)
        step = jax.jit(lambda w, x: (w * 0.999 + x.mean(), w.sum()), donate_argnums=0)
        host = np.ones((8, 16), np.float32)
        def run(count):
            global w
            for n in range(count):
                w, loss = step(w, jax.device_put(host, rows))
                if n % 10 == 0:
                    value = float(loss)
            w.block_until_ready()
            return value
        """
    )
    client.do("result = run(600)", 120.0)
    pids = shared.pids()
    memory, buffers = _rss(pids), shared.status()["gauges"]["buffers"]
    client.do(f"result = run({STEPS})", BOUND)
    grown = {role: size - memory[role] for role, size in _rss(pids).items()}
    assert shared.pids() == pids, "a process was restarted"
    _tell(f"{STEPS} steps", memory, grown)
    # A leak of 2 KiB a step would show; allocators keep a few MiB of their own.
    assert all(size < 6 * MIB for size in grown.values()), grown
    assert shared.wait_for("few buffers", lambda s: s["gauges"]["buffers"] <= buffers + 4, 10.0)


@pytest.mark.slow
@pytest.mark.timeout_seconds(BOUND + 60)
def test_sessions_leave_nothing_behind(shared: Any) -> None:
    """One client process connects again and again; each session makes arrays and runs a program."""
    client = shared.client()
    client.do(
        """
        from jax.extend import backend
        def session():
            ds = jax.devices()
            rows = NamedSharding(Mesh(np.array(ds), ("x",)), P("x"))
            x = jax.device_put(np.ones((8, 64), np.float32), rows)
            total = float(jax.jit(lambda v: v.sum())(x))
            backend.clear_backends()
            return total
        def run(count):
            return [session() for _ in range(count)]
        """
    )
    # A worker's first compile takes some 50 MiB for good, and each worker compiles some programs.
    client.do("for n in range(8): jax.jit(lambda v: v + n)(np.ones(4)).block_until_ready()", 120.0)
    client.do("run(20)", 120.0)
    gc.collect()
    pids = shared.pids()
    memory, files = _rss(pids), _open_files(pids)
    totals = client.do(f"result = sum(run({SESSIONS}))", BOUND)
    assert totals == 512.0 * SESSIONS
    client.close()
    after = shared.wait_for("no sessions", lambda s: not s["sessions"])
    assert after["gauges"]["buffers"] == 0
    assert after["gauges"]["pending_requests"] == 0
    grown = {role: size - memory[role] for role, size in _rss(pids).items()}
    _tell(f"{SESSIONS} sessions", memory, grown)
    # 64 KiB a session, long caches of programs aside, would show.
    assert all(size < 12 * MIB for size in grown.values()), grown
    opened = {role: count - files[role] for role, count in _open_files(pids).items()}
    assert all(count <= 8 for count in opened.values()), opened
