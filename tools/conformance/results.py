"""What one test file gave on one side, read from the log that recorder.py writes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

# The scope of a local run of no more than what did not pass through the cluster.
DOUBTFUL = "doubtful"


@dataclasses.dataclass
class Result:
    """`outcome` is passed, failed, skipped or ended (the process died or hung inside it)."""

    outcome: str
    seconds: float = 0.0
    reason: str = ""
    message: str = ""


@dataclasses.dataclass
class FileResults:
    tests: dict[str, Result]
    collected: int = 0  # how many tests were wanted; 0 = the file was never collected
    in_file: int = 0  # how many the file has
    finished: str = ""  # the scope of the last call, once it came to its end
    collect_error: str = ""

    @property
    def complete(self) -> bool:
        return bool(self.collect_error or self.finished)

    def count(self, outcome: str) -> int:
        return sum(result.outcome == outcome for result in self.tests.values())


def read(log: Path) -> FileResults:
    found = FileResults({})
    if not log.exists():
        return found
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        if "start" in entry:
            found.tests[entry["start"]] = Result(
                "ended", reason="the test process hung or died in this test"
            )
        elif "end" in entry:
            found.tests[entry["end"]] = Result(
                entry["outcome"],
                entry.get("seconds", 0.0),
                entry.get("reason", ""),
                entry.get("message", ""),
            )
        elif "collected" in entry:
            # The latest call says what is wanted; an earlier one may have wanted a sample.
            found.collected = entry["collected"]
            found.in_file = entry["in_file"]
            found.finished = ""
        elif "finished" in entry:
            found.finished = entry["finished"]
        elif "collect_error" in entry:
            found.collect_error = entry["text"].strip().splitlines()[-1][:400]
        elif "note" in entry and found.tests:
            last = next(reversed(found.tests.values()))
            if last.outcome == "ended":
                last.reason = entry["note"]
    return found


def add_note(log: Path, note: str) -> None:
    """Why the process ended: becomes the reason of the test in which it ended."""
    with log.open("a") as out:
        out.write(json.dumps({"note": note}) + "\n")


def finish(log: Path, scope: str) -> None:
    """Notes that of this scope nothing is left to run."""
    with log.open("a") as out:
        out.write(json.dumps({"finished": scope}) + "\n")


def forget(log: Path, outcomes: set[str]) -> int:
    """Drops the tests with these outcomes, so that they run again; returns how many."""
    found = read(log)
    again = {name for name, result in found.tests.items() if result.outcome in outcomes}
    if not again and not found.collect_error:
        return 0
    kept = []
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        name = entry.get("start") or entry.get("end")
        if name in again or {"collect_error", "note", "finished"} & entry.keys():
            continue
        kept.append(line)
    log.write_text("".join(line + "\n" for line in kept))
    return len(again)
