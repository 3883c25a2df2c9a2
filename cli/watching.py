"""``watch``: what a server records, as it goes."""

from __future__ import annotations

import json
import select
import sys
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from eplb_gap.cli.options import log, out
from eplb_gap.cli.outputs import Force, check_outputs, metrics
from eplb_gap.problem import InputError
from eplb_gap.problem.atomic import write_atomically

if TYPE_CHECKING:  # these load the planner, which `--help` need not wait for
    from eplb_gap.analysis.watch.scored import Score, Window

AROUND, HEADING = 5, 3
"""Lines around all tables, and those of a table that are no rows."""
MEANING = (
    "served: balancedness of the map in use on these loads; planned: of the map answered; best: no map can exceed it; "
    "gap: to a certified bound, at most; moved: replicas copied, of all"
)


def watch(
    folder: Annotated[Path, typer.Argument(help="Folder that a server records into (EPLB_GAP_RECORD).")],
    once: Annotated[bool, typer.Option("--once", help="Print the last windows and end.")] = False,
    last: Annotated[int, typer.Option(min=1, help="Windows of every model to begin with.")] = 20,
    every: Annotated[float, typer.Option(min=0.05, max=3600, help="Seconds between two looks into the folder.")] = 2.0,
    prometheus: Annotated[
        Path | None, typer.Option(help="Write metrics to this file at every look, for a textfile collector (.prom).")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Serve metrics at http://127.0.0.1:PORT/metrics; 0: any port.")] = None,
    force: Force = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: one object a window; with --once, one of all.")] = False,
) -> None:
    """Show what a server records: balance, gap to a bound and moves of every window, as it comes; on Ctrl-C it ends."""
    from eplb_gap.analysis.watch.endpoint import endpoint
    from eplb_gap.analysis.watch.follow import Follower
    from eplb_gap.analysis.watch.follow import watch as look
    from eplb_gap.analysis.watch.prometheus import Exposition

    if once and port is not None:
        raise InputError("--port is given with --once, which does not stay to be asked; --prometheus writes a file")
    check_outputs([metrics("--prometheus", prometheus)], [("FOLDER", folder)], force)
    exposition, page = Exposition(counting=not once), [""]

    def export(windows: list[Window]) -> None:
        exposition.add(windows)
        page[0] = exposition.text()  # a text of its own: the page is asked for while windows are added
        if prometheus is not None:
            write_atomically(prometheus, page[0].encode())

    if once:
        windows = look(folder, last, _left_out)
        export(windows)
        if as_json:
            print(json.dumps({"windows": [window.as_dict() for window in windows]}))
        elif out.is_terminal:
            out.print(tables(windows, str(folder), None))
        else:
            print("\n".join(map(line, windows)))
        return
    follower = Follower(folder, last)
    with ExitStack() as stack:
        if port is not None:
            address = stack.enter_context(endpoint(port, lambda: page[0]))
            log.print(f"metrics at {address}", markup=False, highlight=False, soft_wrap=True)
        if as_json or not out.is_terminal:
            log.print(f"watching {folder}, a line for every window", markup=False, highlight=False, soft_wrap=True)
            show, say = _print_json if as_json else _print_lines, _left_out
        else:
            kept: dict[str, deque[Window]] = {}
            live = stack.enter_context(Live(console=out, auto_refresh=False, vertical_overflow="crop"))

            def show(windows: list[Window]) -> None:
                for window in windows:
                    kept.setdefault(window.model, deque(maxlen=last)).append(window)
                rows = max(1, (out.size.height - AROUND) // max(1, len(kept)) - HEADING)
                live.update(tables([one for model in kept.values() for one in model], str(folder), rows), refresh=True)

            def say(problem: str) -> None:
                if log.is_terminal:  # that of the table, which moves down a line; unwrapped its last line would be miscounted
                    live.console.print(f"left out: {problem}", markup=False, highlight=False)
                else:
                    _left_out(problem)

        first, unwritten = True, ""
        while True:
            found, problems = follower.new(), follower.broken
            try:
                export(found)
                unwritten = ""
            except InputError as error:  # a disk that is full now need not stay so
                problems = problems if str(error) == unwritten else [*problems, str(error)]
                unwritten = str(error)
            if found or first:
                show(found)
            first = False
            for problem in problems:
                say(problem)
            if _unread():
                raise typer.Exit(1)
            time.sleep(every)


def _left_out(problem: str) -> None:
    log.print(f"left out: {problem}", markup=False, highlight=False, soft_wrap=True)


def _unread() -> bool:
    """Return whether nobody reads what is printed any more, as behind ``| head``: between windows no write would tell."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # a system without poll, or what is printed goes to no file
        return False


def _print_json(windows: list[Window]) -> None:
    for window in windows:
        print(json.dumps(window.as_dict()), flush=True)


def _print_lines(windows: list[Window]) -> None:
    for window in windows:
        print(line(window), flush=True)


def line(window: Window) -> str:
    """Return a window as one line of names and values; what is not known is left out."""
    said = {"model": window.model, "call": window.call, "host": window.host.replace(" ", "-"), "tokens": window.tokens}
    for name, score in (("served", window.served), ("planned", window.planned)):
        if score is not None:
            said |= {
                name: f"{score.balancedness:.4f}",
                f"{name}_gap": f"{score.gap:.5f}",
                f"{name}_worst": f"{score.worst_gap:.5f}",
            }
    if window.best is not None:
        said["best"] = f"{window.best:.4f}"
    if window.moved is not None:
        said["moved"] = window.moved
    if window.not_recorded:
        said["not_recorded"] = window.not_recorded
    return " ".join([window.utc, *(f"{name}={value}" for name, value in said.items())])


def tables(windows: list[Window], folder: str, rows: int | None) -> RenderableType:
    """Return a table of every model, the newest windows last.

    Parameters
    ----------
    windows : list of Window
    folder : str
    rows : int, optional
        As many of the newest of every model are shown.
    """
    if not windows:
        return Text(f"waiting for the first call in {folder}; Ctrl-C ends")
    by_model: dict[str, list[Window]] = {}
    for window in windows:
        by_model.setdefault(window.model, []).append(window)
    shown = [_table(found[-rows:] if rows else found) for found in by_model.values()]
    return Group(Text(folder, style="bold"), *shown, Text(MEANING, style="dim"))


def _table(windows: list[Window]) -> Table:
    newest = windows[-1]
    layers, _, experts = newest.model.partition("x")
    title = f"{newest.host}: {layers} layers, {experts} experts"
    if newest.live_gpus is not None:
        title += f", {newest.live_gpus} GPUs"
    table = Table(title=Text(title), title_justify="left", box=None, padding=(0, 1), pad_edge=False)
    for name in ("UTC", "call", "tokens", "served", "gap", "planned", "gap", "best", "moved"):
        table.add_column(name, justify="left" if name == "UTC" else "right", no_wrap=True)
    for window in windows:
        table.add_row(
            window.utc[5:-1].replace("T", " "),
            str(window.call),
            _short(window.tokens),
            *_cells(window.served),
            *_cells(window.planned),
            "-" if window.best is None else f"{window.best:.4f}",
            "-" if window.moved is None or not window.slots else f"{window.moved / window.slots:.1%}",
        )
    lost = sum(window.not_recorded for window in windows)
    if lost:
        table.caption = f"{lost} calls could not be recorded"
    return table


def _short(number: int) -> str:
    """Return a number in three digits and the letter of thousands, millions, ..."""
    value, letters = float(number), ["", "k", "M", "G", "T", "P", "E"]
    while value >= 999.5 and len(letters) > 1:
        value /= 1000
        del letters[0]
    return f"{value:.3g}{letters[0]}"


def _cells(score: Score | None) -> tuple[str, str]:
    return ("-", "-") if score is None else (f"{score.balancedness:.4f}", f"{score.gap:.2%}")
