"""Runs the benchmarks of a source checkout: `causeway bench` lists them, with a NAME runs one.

Each one compares a cluster with its peers by turns on the same cores and prints the limits of the
machine that it measured in the same run.
"""

from __future__ import annotations

import json
import sys

from causeway.cluster import paths
from causeway.cluster.errors import ClusterError, ExitCode

DEFAULT_PAIRS = 15


def main(
    name: str = "",
    output_json: bool = False,
    quick: bool = False,
    *,
    pairs: int = DEFAULT_PAIRS,
    save: str = "",
) -> int:
    """An exit status. `name`: a benchmark, several with commas, "all", or "" for a list.

    With `quick` and no name all are run. `save` is a file that gets the JSON report too.
    """
    try:
        folder = _folder()
    except ClusterError as error:
        print(f"causeway bench: {error}", file=sys.stderr)
        return int(ExitCode.DO_NOT_RETRY)
    sys.path.insert(0, folder)
    from harness import comparison, runner

    if not name and not quick:
        titles = runner.titles()
        if output_json:
            print(json.dumps({"ok": True, "benchmarks": titles}))
        else:
            width = max(map(len, titles))
            for key, title in titles.items():
                print(f"{key:<{width}}  {title}")
        return 0
    chosen = list(runner.NAMES) if name in ("", "all") else name.replace("-", "_").split(",")
    unknown = [one for one in chosen if one not in runner.NAMES]
    if unknown:
        print(
            f"causeway bench: there is no benchmark {unknown[0]!r}: choose among "
            + ", ".join((*runner.NAMES, "all")),
            file=sys.stderr,
        )
        return int(ExitCode.USAGE)
    return runner.run(chosen, comparison.Options(quick=quick, pairs=pairs), output_json, save)


def _folder() -> str:
    root = paths.checkout_root()
    if root is None or not (root / "bench" / "harness").is_dir():
        raise ClusterError(
            "the benchmarks are part of a source checkout: clone it and use ./causeway there",
            ExitCode.DO_NOT_RETRY,
        )
    return str(root / "bench")
