"""Failures a person can act on, each with the exit status that a script can tell apart."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit statuses of the command line. 2 is a mistake in the arguments (Typer's own)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3  # no cluster of that name
    CONFLICT = 4  # a cluster of that name with other options, or a port in use
    START_FAILED = 5  # the head or a worker could not start
    TIMEOUT = 6  # a bounded wait ran out
    DEGRADED = 7  # the cluster runs, but not all of it
    DO_NOT_RETRY = 93  # a prerequisite is missing: trying again changes nothing
    NO_PROGRAM = 127  # `run` was given a program that is not there, as shells say it


class ClusterError(Exception):
    """What happened, why, and what would make it succeed; `code` becomes the exit status."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code
