"""`causeway bench [NAME...]`: lists or runs the benchmarks of this checkout."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))


def main() -> int:
    from causeway import bench

    parser = argparse.ArgumentParser(prog="causeway bench", description=bench.__doc__)
    parser.add_argument("name", nargs="?", default="", metavar="NAME",
                        help="one, several with commas, or 'all'; without it they are listed")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    parser.add_argument("--quick", action="store_true",
                        help="a smoke test of seconds: checks results, its times mean nothing")
    parser.add_argument("--pairs", type=int, default=bench.DEFAULT_PAIRS,
                        help="rounds through all systems (default: %(default)s)")
    parser.add_argument("--save", default="", metavar="FILE", help="write the JSON report there")
    chosen = parser.parse_args()
    # Also a plain kill ends what has been started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if chosen.pairs < 1:
        parser.error(f"--pairs is {chosen.pairs}: it must be at least 1")
    return bench.main(
        chosen.name, chosen.output == "json", chosen.quick, pairs=chosen.pairs, save=chosen.save
    )


if __name__ == "__main__":
    sys.exit(main())
