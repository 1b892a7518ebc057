#!/usr/bin/env python3
"""Runs JAX's own test files on local devices and through a Causeway cluster, and compares.

The checkout must be of the same release as the installed jax. Results are kept in --out: a second
call with the same folder goes on where the first one ended; --again runs what did not pass again.
--sample 10 runs one test in ten, chosen by name; a later call without it runs the others.
--doubtful runs through the cluster first, and locally no more than what did not pass there.

  tools/jax_conformance.py --jax-checkout ../jax --files array_test.py pjit_test.py --out results
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from conformance import report, results, sides

# The files that say most about a runtime, in the order in which they are worth their time.
DEFAULT_FILES = [
    "jax_jit_test",
    "aot_test",
    "layout_test",
    "memories_test",
    "multi_device_test",
    "array_test",
    "export_test",
    "checkify_test",
    "shard_map_test",
    "pjit_test",
    "random_test",
    "python_callback_test",
    "debugging_primitives_test",
    "pmap_test",
    "api_test",
    "lax_test",
    "lax_control_flow_test",
    "linalg_test",
    "colocated_python_test",
    "string_array_test",
]
# Ends of one file's processes (each lost one test) after which the file is given up.
_BREAKS_MAX = 25


def main() -> int:
    options = _arguments()
    tests = options.jax_checkout / "tests"
    if not tests.is_dir():
        print(f"{tests} is no folder: --jax-checkout must name a checkout of JAX", file=sys.stderr)
        return 2
    files = [tests / f"{name.removesuffix('.py')}.py" for name in options.files or DEFAULT_FILES]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        print(f"{tests} has no {', '.join(missing)}", file=sys.stderr)
        return 2
    for side in ("local", "causeway"):
        (options.out / side).mkdir(parents=True, exist_ok=True)
    if not options.report_only:
        _run_all(options, files)
    return _write(options, files)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jax-checkout", type=Path, required=True, metavar="DIR")
    parser.add_argument("--files", nargs="+", metavar="a_test.py")
    parser.add_argument("--jobs", type=int, default=1, help="each with a cluster of its own")
    parser.add_argument("--timeout-per-file", type=float, default=900.0, metavar="S")
    parser.add_argument("--timeout-per-test", type=int, default=60, metavar="S")
    parser.add_argument("--filter", default="", metavar="EXPR", help="as pytest -k")
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="one test in N")
    parser.add_argument("--doubtful", action="store_true", help="locally only what did not pass")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--hosts", type=int, default=2, help="workers that share the devices")
    parser.add_argument("--out", type=Path, default=Path("build/conformance"))
    parser.add_argument("--again", action="store_true", help="run what did not pass again")
    parser.add_argument("--report-only", action="store_true")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--local-only", action="store_true")
    only.add_argument("--causeway-only", action="store_true")
    options = parser.parse_args()
    options.out = options.out.absolute()
    options.jax_checkout = options.jax_checkout.absolute()
    if options.jobs > 1 and options.doubtful:
        parser.error("--doubtful needs the one side's results for the other: leave --jobs at 1")
    if options.devices % options.hosts:
        parser.error(f"--devices {options.devices} cannot be shared evenly by {options.hosts}")
    return options


def _run_all(options: argparse.Namespace, files: list[Path]) -> None:
    todo: queue.SimpleQueue[tuple[str, Path]] = queue.SimpleQueue()
    wanted = ["local"] * (not options.causeway_only) + ["causeway"] * (not options.local_only)
    if options.doubtful:
        wanted.reverse()
    for file in files:
        for side in wanted:
            todo.put((side, file))
    threads = [
        threading.Thread(target=_work, args=(options, todo, number), daemon=True)
        for number in range(options.jobs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _work(
    options: argparse.Namespace, todo: queue.SimpleQueue[tuple[str, Path]], number: int
) -> None:
    local = sides.LocalSide(options.devices)
    target = os.environ.get("JAX_BACKEND_TARGET")
    if target:
        cluster = sides.RunningClusterSide(target)
    else:
        cluster = sides.OwnClusterSide(
            number, options.devices, options.hosts, options.out / "clusters"
        )
    try:
        while True:
            try:
                side, file = todo.get_nowait()
            except queue.Empty:
                return
            _one_file(options, local if side == "local" else cluster, file)
    finally:
        cluster.close()


def _one_file(
    options: argparse.Namespace,
    side: sides.LocalSide | sides.RunningClusterSide | sides.OwnClusterSide,
    file: Path,
) -> None:
    log = options.out / side.name / f"{file.stem}.jsonl"
    if options.again:
        results.forget(log, {"failed", "ended"})
    only, scope = None, f"{options.sample} {options.filter}".strip()
    if options.doubtful and side.name == "local":
        only, scope = _doubtful(options, file), f"{results.DOUBTFUL} {scope}"
        if not only.stat().st_size:
            results.finish(log, scope)
    found = results.read(log)
    if found.collect_error or found.finished in (scope, "1"):
        return
    begun, breaks = time.monotonic(), 0
    deadline = begun + options.timeout_per_file
    while time.monotonic() < deadline and breaks < _BREAKS_MAX:
        known = len(found.tests)
        code = sides.run_pytest(
            side,
            file,
            log,
            options.timeout_per_test,
            deadline - time.monotonic(),
            options.filter,
            options.sample,
            only,
            scope,
            _say,
        )
        found = results.read(log)
        if code == 124:
            # Whatever was running when the time was over has not failed.
            results.forget(log, {"ended"})
            side.after_trouble()
            break
        last = list(found.tests.values())[-1:]
        broke = bool(last) and last[0].outcome in ("ended", "failed") and not found.complete
        if broke or code not in (0, 1, 5):
            breaks += 1
            why = side.after_trouble()
            if last and last[0].outcome == "ended":
                results.add_note(log, f"process ended with {code} in this test; {why}".rstrip("; "))
        if found.complete or len(found.tests) == known:
            break
    found = results.read(log)
    _say(
        f"{side.name} {file.name}: {found.count('passed')} passed, {found.count('failed')} failed, "
        f"{found.count('ended')} ended, {found.count('skipped')} skipped of {found.collected} "
        f"in {time.monotonic() - begun:.0f} s, {breaks} breaks"
    )


def _doubtful(options: argparse.Namespace, file: Path) -> Path:
    """A file with the names of the tests that did not pass through the cluster."""
    remote = results.read(options.out / "causeway" / f"{file.stem}.jsonl")
    names = [name for name, result in remote.tests.items() if result.outcome != "passed"]
    listed = options.out / "local" / f"{file.stem}.only"
    listed.write_text("".join(name + "\n" for name in names))
    return listed


def _write(options: argparse.Namespace, files: list[Path]) -> int:
    pairs = {
        file.stem: (
            results.read(options.out / "local" / f"{file.stem}.jsonl"),
            results.read(options.out / "causeway" / f"{file.stem}.jsonl"),
        )
        for file in files
    }
    rows, differences = report.compare(pairs)
    heading = f"JAX's own tests, {options.devices} devices on {options.hosts} workers"
    text = report.markdown(rows, differences, heading)
    (options.out / "table.md").write_text(text + "\n")
    (options.out / "table.json").write_text(
        json.dumps(report.as_json(rows, differences), indent=1) + "\n"
    )
    print(text.partition("## Differences")[0])
    print(f"{len(differences)} differences; see {options.out / 'table.md'}")
    return 1 if differences else 0


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
