"""What a benchmark found: rows for people, and everything for programs."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

from harness import stats


@dataclasses.dataclass
class Report:
    """Rows are label -> column -> text; `data` keeps the figures behind them."""

    name: str
    title: str
    unit: str = ""
    rows: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    data: dict[str, Any] = dataclasses.field(default_factory=dict)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def add(self, label: str, **columns: Any) -> None:
        self.rows[label] = {key.replace("_", " "): _text(value) for key, value in columns.items()}
        self.data[label] = columns

    def compare(
        self, label: str, results: dict[str, list[dict[str, Any]]], key: str
    ) -> None:
        """One row: p50 (p99) of every system, CPU time, and the first system's ratio to others."""
        columns: dict[str, str] = {}
        data: dict[str, Any] = {}
        names = list(results)
        for name in names:
            runs = [result[key] for result in results[name] if key in result]
            if not runs:
                columns[name] = "-"
                continue
            p50 = statistics.median(run["p50"] for run in runs)
            p99 = statistics.median(run["p99"] for run in runs)
            columns[name] = f"{_text(p50)} ({_text(p99)})"
            if "cpu_us" in runs[0]:
                columns[name] += f" cpu {_text(statistics.median(r['cpu_us'] for r in runs))}"
            data[name] = runs
        first = names[0]
        for other in names[1:]:
            if first in data and other in data and len(data[first]) == len(data[other]):
                ratio, low, high = stats.paired_ratio(
                    [run["p50"] for run in data[first]], [run["p50"] for run in data[other]]
                )
                columns[f"x {other}"] = f"{ratio:.2f} [{low:.2f}-{high:.2f}]"
                data[f"ratio to {other}"] = {"median": ratio, "low": low, "high": high}
        self.rows[label] = columns
        self.data[label] = data

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "title": self.title, "unit": self.unit,
            "notes": self.notes, "data": self.data,
        }

    def text(self) -> str:
        """A Markdown table, which reads well in a terminal too."""
        columns = list(dict.fromkeys(key for row in self.rows.values() for key in row))
        unit = f" [{self.unit}]" if self.unit else ""
        lines = [f"## {self.title}{unit}", ""]
        table = [["", *columns], *(
            [label, *(row.get(column, "") for column in columns)]
            for label, row in self.rows.items()
        )]
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        for index, row in enumerate(table):
            lines.append("| " + " | ".join(t.ljust(w) for t, w in zip(row, widths)) + " |")
            if index == 0:
                lines.append("|" + "|".join("-" * (w + 2) for w in widths) + "|")
        return "\n".join([*lines, "", *self.notes])


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
