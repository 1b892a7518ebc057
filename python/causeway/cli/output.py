"""How commands speak: tables and sentences for people, one JSON object for programs."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from causeway.cluster.errors import ClusterError


class Output(enum.StrEnum):
    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="text for people, json for programs")
]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def emit(output: Output, data: dict[str, Any], as_text: Callable[[], None]) -> None:
    """Prints `data` as JSON, or calls `as_text`, which prints it for people."""
    if output is Output.JSON:
        sys.stdout.write(json.dumps(data, indent=2, default=str) + "\n")
        sys.stdout.flush()
    else:
        as_text()


def fail(output: Output, error: ClusterError) -> NoReturn:
    """Reports the error in the chosen form and ends with its exit status."""
    if output is Output.JSON:
        print(json.dumps({"ok": False, "error": str(error), "exit_code": int(error.code)}))
    else:
        err.print(f"[bold red]causeway:[/] {_escape(str(error))}")
    raise typer.Exit(int(error.code))


def note(text: str) -> None:
    """A remark for people, on standard error so that it never mixes with results."""
    err.print(f"causeway: {_escape(text)}")


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
