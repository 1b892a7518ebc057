"""Entry point of the supervisor; `causeway up` starts it, nobody else needs to."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path

from causeway.cluster.options import ClusterOptions
from causeway.supervisor.supervisor import Supervisor


def main() -> int:
    parser = argparse.ArgumentParser(prog="causeway.supervisor")
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--options", required=True, help="ClusterOptions as JSON")
    parser.add_argument("--owner-pid", type=int, default=0)
    parser.add_argument("--owner-started", type=int, default=0)
    arguments = parser.parse_args()
    owner = (arguments.owner_pid, arguments.owner_started) if arguments.owner_pid else None
    options = ClusterOptions.from_json(json.loads(arguments.options))
    try:
        Supervisor(arguments.dir, options, owner).run()
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
