"""What all commands share: where they print, and options that several take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status

out, log = Console(), Console(stderr=True)

INTERRUPTED = 130
"""Exit code after Ctrl-C; typer turns the interrupt into it."""

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
PlanWindow = Annotated[int | None, typer.Option(help="Window to plan on; the last but one by default.")]
ServeWindow = Annotated[int | None, typer.Option(help="Window that is served; the one after by default.")]
MapFormat = Annotated[str | None, typer.Option(help="Format of map files; recognised by default.")]


class DispatchChoice(StrEnum):
    """How a dispatch sends a token, as :data:`eplb_gap.problem.routing.traffic.Dispatch` says it."""

    node_dedup = "node-dedup"
    rank_dedup = "rank-dedup"
    none = "none"


class ReplicasChoice(StrEnum):
    """The rules of :mod:`eplb_gap.heuristics.dispatch.replica_choice`."""

    hashed = "hashed"
    local_first = "local-first"
    smallest_cover = "smallest-cover"


RoutingFile = Annotated[
    Path | None,
    typer.Option("--routing", help="The experts of every token: traffic is counted; without --loads they are the loads too."),
]
DispatchOption = Annotated[
    DispatchChoice | None,
    typer.Option(help="A copy of a token for every node (the default), every GPU or every replica it is sent to."),
]
ReplicasOption = Annotated[
    ReplicasChoice | None, typer.Option(help="How the dispatcher chooses among replicas; local-first by default.")
]


@contextmanager
def spinner(text: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what goes on, and yield a function that changes the text; elsewhere nothing is written."""
    if not log.is_terminal:
        yield lambda changed: None
        return
    with Status(text, console=log) as status:
        yield status.update
