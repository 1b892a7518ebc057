"""Entry point of a client process: runs one case's `client(config)` and prints what it returns."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))


def main() -> None:
    case, config = sys.argv[1], json.loads(sys.argv[2])
    result = importlib.import_module(f"cases.{case}").client(config)
    print("RESULT " + json.dumps(result), flush=True)
    # The client library prints stack traces while it tears a session down; nothing is left to do.
    os._exit(0)


if __name__ == "__main__":
    main()
