"""The main job: measure ten seed programs against proven optima, print the tables, compare with the published rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from eplb_gap.experiments.exhibits.figures import draw_all
from eplb_gap.experiments.exhibits.tables import write_tables
from eplb_gap.experiments.loads import traces
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.compare import Comparison, compare
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.experiments.measuring.runner import run_cells
from eplb_gap.experiments.measuring.runtime import timed
from eplb_gap.experiments.studies import gaps as suites
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS

RUNTIME_ROUNDS = 5
RUNTIME_INSTANCE = "calibrated-00"


@dataclass(frozen=True)
class Report:
    """What a reproduction produced: rows, tables as Markdown ("" if a cell failed), the comparison with the published rows."""

    rows: list[Row]
    tables: str
    comparison: Comparison


def measure(folder: Path, workers: int, console: Console, scheduler: str | None = None) -> list[Row]:
    """Run what is missing in ``folder`` and return the rows of the main job.

    Parameters
    ----------
    folder : Path
        Receives the rows; a second call goes on where the first was stopped.
    workers : int
        Processes.
    console : Console
        For progress.
    scheduler : str, optional
        Address of a Dask scheduler whose workers run the cells; times are measured here.
    """
    finished = run_cells(suites.protocol_cells() + suites.gap_cells(), folder, workers, console, scheduler)
    loads = traces.trace("calibrated").window(0)
    runtimes = folder / "runtime.ndjson"
    return finished + timed(runtimes, RUNTIME_INSTANCE, list(SEED_PROGRAMS), loads, traces.FLAGSHIP, RUNTIME_ROUNDS, console)


def reproduce(folder: Path, workers: int, console: Console, scheduler: str | None = None) -> Report:
    """Measure, write ``tables.md`` and ``figures/`` to ``folder``, compare with ``results/``; parameters: see :func:`measure`."""
    finished = measure(folder, workers, console, scheduler)
    tables = ""
    if not any(map(rows.failed, finished)):
        tables = write_tables(finished, folder / "tables.md")
        draw_all(finished, folder / "figures")
    return Report(finished, tables, compare(finished, rows.read_suites(rows.RESULTS)))
