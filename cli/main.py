"""The command line ``eplb-gap``."""

from __future__ import annotations

import sys

import typer

from eplb_gap.cli import calibrating, converting, judging, measuring, public, recording, replaying, sizing, solving, watching
from eplb_gap.cli.options import INTERRUPTED, log
from eplb_gap.cli.words import Command, ConvertCommand, LoadsCommand
from eplb_gap.problem import InputError, PlacementError
from eplb_gap.problem.certificate import CertificateError

app = typer.Typer(
    name="eplb-gap",
    help="Optimal placements, certified bounds and optimality gaps for expert-parallel load balancing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(cls=solving.SolveCommand)(solving.solve)
for command, kind in (
    (judging.evaluate, LoadsCommand),
    (judging.explain, LoadsCommand),
    (calibrating.calibrate, LoadsCommand),
    (sizing.capacity, LoadsCommand),
    (replaying.replay, LoadsCommand),
    (watching.watch, Command),
    (measuring.bench, Command),
    (recording.record, Command),
    (converting.convert, ConvertCommand),
    (solving.verify, Command),
    (public.public_loads, Command),
    (measuring.reproduce, Command),
    (measuring.status, Command),
):
    app.command(cls=kind)(command)


RESUMABLE = {"bench", "record", "reproduce"}
"""Commands that go on where an interrupted run was."""


def printable(message: str) -> str:
    """Return a message on one line: what a file's name or content cannot print is escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in message)


def main() -> None:
    """Run the command line; bad input ends with one line and exit code 2, Ctrl-C with exit code 130."""
    try:
        app(standalone_mode=True)
    except (InputError, PlacementError, CertificateError) as error:
        log.print(f"eplb-gap: {printable(str(error))}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            kept = "; what was finished is kept" if set(sys.argv[1:2]) <= RESUMABLE else ""
            log.print(f"eplb-gap: interrupted{kept}")
        raise
