"""``reproduce``, ``bench`` and ``status``: measurements over many cells."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from eplb_gap.cli.options import JsonFlag, log, out
from eplb_gap.cli.outputs import rows_folder
from eplb_gap.problem import InputError

SchedulerAddress = Annotated[
    str | None, typer.Option("--scheduler", help="Dask scheduler, tcp://HOST:PORT, whose workers run the cells instead.")
]


def reproduce(
    runs: Annotated[Path, typer.Option(help="Folder for the rows of this run.")] = Path("runs"),
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    everything: Annotated[bool, typer.Option("--all", help="The whole grid, benches too: hours; can be stopped.")] = False,
    suites: Annotated[
        list[str] | None, typer.Option("--suite", help="Only rows of this suite, of the whole grid; can be repeated.")
    ] = None,
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="Only rows of this method, of the whole grid; can be repeated.")
    ] = None,
    scheduler: SchedulerAddress = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure the ten seed programs against proven optima, print the tables, compare with the published rows."""
    if workers < 1:
        raise InputError(f"--workers is {workers}; at least 1 is needed")
    rows_folder(runs, "--runs")
    from eplb_gap.experiments.published.reproduce import reproduce as run
    from eplb_gap.experiments.studies.jobs import Selection

    only = Selection(tuple(suites or ()), tuple(methods or ())) if suites or methods else None
    report = run(runs, workers, log, scheduler, everything, only)
    comparison = report.comparison
    if as_json:
        print(
            json.dumps(
                {
                    "equal": comparison.equal,
                    "intersecting": comparison.intersecting,
                    "new": comparison.new,
                    "left_out": comparison.left_out,
                    "problems": comparison.problems,
                }
            )
        )
    else:
        print(report.tables)
        written = f"tables and figures in {runs}/" if report.tables else "no tables and figures: they need the rows of all cells"
        print(
            f"rows: {comparison.equal} equal to the published ones, {comparison.intersecting} solver intervals meet them, "
            f"{comparison.new} new; {written}"
        )
        if comparison.left_out:
            from eplb_gap.experiments.loads.public_counts import VARIABLE

            print(
                f"left out: {comparison.left_out} rows on public loads, as {VARIABLE} names no folder (see eplb-gap public-loads)"
            )
    for problem in comparison.problems:
        log.print(f"differs from the published row: {problem}", markup=False)
    if comparison.problems:
        raise typer.Exit(1)


class Bench(StrEnum):
    """What a bench measures."""

    solvers = "solvers"
    heuristics = "heuristics"
    serving = "serving"
    regimes = "regimes"
    control = "control"
    network = "network"


def bench(
    what: Annotated[Bench, typer.Argument(help="What to measure.")],
    runs: Annotated[Path, typer.Option(help="Folder for the rows of this run.")] = Path("runs"),
    workers: Annotated[int, typer.Option(help="Processes for what is not timed against a level.")] = 2,
    scheduler: SchedulerAddress = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure engines, heuristics, serving, controllers or network and time against their levels, or regimes; resumable."""
    if workers < 1:
        raise InputError(f"--workers is {workers}; at least 1 is needed")
    rows_folder(runs, "--runs")
    from eplb_gap.experiments.studies.jobs import BENCHES

    chosen = BENCHES[what]
    measured = chosen.run(runs, workers, log, scheduler)
    failed = any(row.failed for row in measured)
    if as_json or not failed:
        print(json.dumps(measured) if as_json else chosen.tables(measured))
    if failed:
        log.print("no tables: they need the rows of all cells")
        raise typer.Exit(1)
    if what == Bench.heuristics:
        from eplb_gap.experiments.measuring.cold_start import tables

        with log.status("first answers, with and without compiled kernels"):
            times = tables()
        log.print(times, markup=False, highlight=False, soft_wrap=True)


def status(
    runs: Annotated[Path, typer.Option(help="Folder with rows.")] = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """Say how many cells of every job are done, failed and missing in a folder of rows, by the code as it is."""
    from eplb_gap.experiments.published import status as found

    with log.status("counting cells"):
        counts = found.status(runs)
    if as_json:
        print(json.dumps(counts))
        return
    table = Table("job", "suite", *(Column(name, justify="right") for name in ("done", "failed", "missing")), box=None)
    for suite, count in counts.items():
        table.add_row(count["job"], suite, *(str(count[name]) for name in ("done", "failed", "missing")))
    out.print(table)
