"""The commands for people who look after an installation or work on a checkout."""

from __future__ import annotations

import platform as host_platform
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from causeway.checks import doctor as doctor_checks
from causeway.checks import suites
from causeway.cli.output import Output, OutputOption, emit, fail, note, out
from causeway.cluster import paths
from causeway.cluster.errors import ClusterError, ExitCode
from causeway.version import __version__

_MARKS = {
    doctor_checks.OK: "[green]ok[/]",
    doctor_checks.WARNING: "[yellow]warning[/]",
    doctor_checks.PROBLEM: "[red]problem[/]",
}


def _print_version(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


def version_option(
    _asked: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the versions and exit."
        ),
    ] = False,
) -> None:
    """Options that need no command."""


def version(output: OutputOption = Output.TEXT) -> None:
    """Print the versions of Causeway, Python and JAX."""
    jax = doctor_checks.package("jax").text
    data = {"causeway": __version__, "python": host_platform.python_version(), "jax": jax}
    line = f"causeway {__version__} (Python {data['python']}, jax {jax})"
    emit(output, data, lambda: print(line))


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="same as --output json")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Look for what keeps a cluster from working here, and say what to do about it."""
    findings = doctor_checks.examine()
    bad = any(finding.level == doctor_checks.PROBLEM for finding in findings)
    data = {"ok": not bad, "findings": [vars(finding) for finding in findings]}

    def text() -> None:
        for finding in findings:
            out.print(f"{_MARKS[finding.level]:>24}  [bold]{finding.check}[/]: {finding.text}")
            if finding.remedy and finding.level != doctor_checks.OK:
                out.print(f"{'':>9}-> {finding.remedy}")

    emit(Output.JSON if as_json else output, data, text)
    if bad:
        raise typer.Exit(int(ExitCode.DO_NOT_RETRY))


def build(
    preset: Annotated[
        str, typer.Option("--preset", help="a preset of CMakePresets.json")
    ] = "release",
    output: OutputOption = Output.TEXT,
) -> None:
    """Compile head, worker core and tests."""
    root = _checkout(output)
    folder = root / "build" / preset
    if not (folder / "build.ninja").is_file():
        _must(output, ["cmake", "--preset", preset], root)
    # This one is for libFuzzer alone: the product compiled this way would be of no use.
    targets = ["fuzzers"] if preset == "fuzz" else []
    _must(output, ["ninja", "-C", str(folder), *targets], root)
    emit(output, {"ok": True, "folder": str(folder)}, lambda: note(f"built in {folder}"))


def test(
    fast: Annotated[bool, typer.Option("--fast", help="leave out the slow tests")] = False,
    only: Annotated[str | None, typer.Option("--only", help="cpp or python")] = None,
    expression: Annotated[str | None, typer.Option("-k", help="only tests of this name")] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Run every test and check; the last line says how many passed and failed."""
    root = _checkout(output)
    if only not in (None, "cpp", "python"):
        fail(output, ClusterError(f"--only {only}: it must be cpp or python", ExitCode.USAGE))
    selection = suites.Selection(
        root, root / "build" / "release", only=only, fast=fast, expression=expression
    )
    total, parts = suites.run_all(selection, note)
    for name, counts in parts.items():
        note(f"{name}: {counts.line()}")
    sys.stderr.flush()
    print(suites.as_json(total, parts) if output is Output.JSON else total.line(), flush=True)
    ran_nothing = total.passed + total.failed == 0
    if total.failed or ran_nothing:
        raise typer.Exit(int(ExitCode.FAILED))


def bench(context: typer.Context) -> None:
    """Run the benchmarks; every further argument goes to bench/run.py."""
    root = _checkout(Output.TEXT)
    program = root / "bench" / "run.py"
    if not program.is_file():
        fail(Output.TEXT, ClusterError(f"there is no {program} in this checkout"))
    done = subprocess.run([sys.executable, str(program), *context.args], check=False)
    raise typer.Exit(done.returncode)


def simulate(
    seed: Annotated[
        int | None, typer.Option("--seed", min=1, help="run this seed alone and print its trace")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="how many seeds to run")] = 100,
    first: Annotated[int, typer.Option("--first", min=1, help="the first of them")] = 1,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="threads")] = 1,
    marks: Annotated[
        bool, typer.Option("--marks", help="say which marked paths were reached and which never")
    ] = False,
    plant: Annotated[
        list[str] | None, typer.Option("--plant", help="a bug to switch on, by mark; repeatable")
    ] = None,
) -> None:
    """Simulate clusters under faults, each from a seed; prints the seeds that fail."""
    root = _checkout(Output.TEXT)
    program = root / "build" / "release" / "causeway" / "bin" / "causeway-sim"
    if not program.is_file():
        fail(
            Output.TEXT,
            ClusterError(
                f"there is no {program}: run causeway build first", ExitCode.DO_NOT_RETRY
            ),
        )
    arguments = [f"--seeds={seeds}", f"--first={first}", f"--jobs={jobs}"]
    if seed is not None:
        arguments = [f"--seed={seed}"]
    if marks:
        arguments.append("--marks")
    if plant:
        arguments.append(f"--plant={','.join(plant)}")
    done = subprocess.run([str(program), *arguments], check=False)
    if done.returncode:
        raise typer.Exit(int(ExitCode.FAILED))


def _checkout(output: Output) -> Path:
    root = paths.checkout_root()
    if root is None:
        fail(
            output,
            ClusterError(
                "this command works in a source checkout: clone it and use ./causeway there",
                ExitCode.DO_NOT_RETRY,
            ),
        )
    return root


def _must(output: Output, command: list[str], cwd: Path) -> None:
    # With JSON asked for, standard output belongs to the report alone.
    done = subprocess.run(
        command, cwd=cwd, stdout=sys.stderr if output is Output.JSON else None, check=False
    )
    if done.returncode:
        fail(output, ClusterError(f"failed: {' '.join(command)}"))
