"""Entry point of the command line: puts the commands together and runs one."""

from __future__ import annotations

import sys

import typer

from causeway.cli import (
    cluster_commands,
    demo_command,
    explain_command,
    failure_commands,
    run_command,
    tool_commands,
)

_CLUSTER = "Clusters"
_PROGRAMS = "Programs"
_FAILURES = "Failures"
_TOOLS = "Tools"

app = typer.Typer(
    name="causeway",
    help="One unmodified JAX process drives every device of a cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_own_options_first = {"allow_interspersed_args": False}

app.callback()(tool_commands.version_option)

app.command(rich_help_panel=_PROGRAMS)(demo_command.demo)
app.command(rich_help_panel=_PROGRAMS, context_settings=_own_options_first)(run_command.run)
app.command(rich_help_panel=_CLUSTER)(cluster_commands.up)
app.command(rich_help_panel=_CLUSTER)(cluster_commands.down)
app.command(rich_help_panel=_CLUSTER)(cluster_commands.status)
app.command(rich_help_panel=_CLUSTER)(cluster_commands.devices)
app.command(rich_help_panel=_CLUSTER)(failure_commands.logs)
app.add_typer(explain_command.app, name="explain", rich_help_panel=_CLUSTER)
app.add_typer(failure_commands.kill_app, name="kill", rich_help_panel=_FAILURES)
app.add_typer(failure_commands.restore_app, name="restore", rich_help_panel=_FAILURES)
app.command(rich_help_panel=_TOOLS)(tool_commands.doctor)
app.command(rich_help_panel=_TOOLS)(tool_commands.build)
app.command(rich_help_panel=_TOOLS)(tool_commands.test)
app.command(
    rich_help_panel=_TOOLS,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(tool_commands.bench)
app.command("sim", rich_help_panel=_TOOLS)(tool_commands.simulate)
app.command(rich_help_panel=_TOOLS)(tool_commands.version)


def main() -> None:
    try:
        app(prog_name="causeway")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
