"""The table: what passes locally, what passes through a cluster, and every difference."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

from conformance.causes import cause
from conformance.results import DOUBTFUL, FileResults


@dataclasses.dataclass
class Row:
    file: str
    tests: int  # of the file
    both: int  # ran on both sides
    local: int  # of those, passed locally
    causeway: int  # of those that passed locally, passed through Causeway
    skipped_more: int  # skipped through Causeway though they pass locally
    not_run: int
    remark: str = ""

    @property
    def percent(self) -> float:
        return 100.0 * self.causeway / self.local if self.local else 0.0


def compare(
    files: dict[str, tuple[FileResults, FileResults]],
) -> tuple[list[Row], list[dict[str, str]]]:
    rows, differences = [], []
    for file, (local, remote) in sorted(files.items()):
        both = [name for name in local.tests if name in remote.tests]
        passed = [name for name in both if local.tests[name].outcome == "passed"]
        if local.finished.startswith(DOUBTFUL):
            # What passed through the cluster was not asked for locally, and counts as passing.
            also = [
                name
                for name, result in remote.tests.items()
                if result.outcome == "passed" and name not in local.tests
            ]
            both += also
            passed += also
        skipped = 0
        for name in passed:
            result = remote.tests[name]
            if result.outcome == "passed":
                continue
            skipped += result.outcome == "skipped"
            differences.append(
                {
                    "file": file,
                    "test": name,
                    "outcome": result.outcome,
                    "reason": result.reason,
                    "cause": "skipped: " + result.reason[:80]
                    if result.outcome == "skipped"
                    else cause(result.reason, result.message, name),
                }
            )
        good = sum(remote.tests[name].outcome == "passed" for name in passed)
        tests = max(local.in_file, remote.in_file)
        remarks = []
        if local.collect_error:
            remarks.append(f"local: {local.collect_error}")
        if remote.collect_error:
            remarks.append(f"causeway: {remote.collect_error}")
        rows.append(
            Row(
                file,
                tests,
                len(both),
                len(passed),
                good,
                skipped,
                tests - len(both),
                "; ".join(remarks),
            )
        )
    return rows, differences


def markdown(rows: list[Row], differences: list[dict[str, str]], heading: str) -> str:
    out = [f"# {heading}", ""]
    out += ["| file | tests | run on both | passed locally | of these through Causeway | % |"]
    out += ["| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        note = f" ({row.remark})" if row.remark else ""
        cells = [row.file + note, row.tests, row.both, row.local, row.causeway]
        out.append("| " + " | ".join(map(str, cells)) + f" | {_percent(row)} |")
    total = Row(
        "**sum**",
        *(sum(getattr(row, f) for row in rows) for f in ("tests", "both", "local", "causeway")),
        skipped_more=0,
        not_run=0,
    )
    cells = [total.file, total.tests, total.both, total.local, total.causeway]
    out += ["| " + " | ".join(map(str, cells)) + f" | {_percent(total)} |", ""]
    groups: dict[str, list[dict[str, str]]] = defaultdict(list)
    for difference in differences:
        groups[difference["cause"]].append(difference)
    out += ["## Differences", ""]
    if not differences:
        out += ["None.", ""]
    for name, group in sorted(groups.items(), key=lambda item: -len(item[1])):
        out += [f"### {name} ({len(group)})", ""]
        for difference in group:
            reason = difference["reason"].replace("|", "\\|").replace("`", "'")[:200]
            out.append(f"- {difference['file']} `{difference['test']}`: {reason}")
        out.append("")
    return "\n".join(out)


def as_json(rows: list[Row], differences: list[dict[str, str]]) -> dict[str, object]:
    return {
        "files": [{**dataclasses.asdict(row), "percent": round(row.percent, 2)} for row in rows],
        "differences": differences,
    }


def _percent(row: Row) -> str:
    return f"{row.percent:.1f}" if row.local else "-"
