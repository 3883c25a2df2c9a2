"""All measurements of the exact engines in one run: ``eplb-gap bench solvers``."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.experiments.measuring.runner import run_cells
from eplb_gap.experiments.studies import agreement, findings, levels, method_profile

SUITES = ("levels", "profile", "agreement", "findings")


def cells() -> list[Cell]:
    """Return all cells, those that are timed against a level first."""
    return [*levels.cells(), *method_profile.cells(), *agreement.cells(), *findings.cells()]


def run(folder: Path, workers: int, console: Console, scheduler: str | None = None) -> list[Row]:
    """Run what is missing in ``folder`` and return all rows.

    Parameters
    ----------
    folder : Path
    workers : int
        Processes of the suites that do not measure time against a level; those run one at a time.
    console : Console
    scheduler : str, optional
        Address of a Dask scheduler whose workers run what is not timed against a level.
    """
    timed = run_cells([cell for cell in cells() if cell.suite == "levels"], folder, 1, console)
    return timed + run_cells([cell for cell in cells() if cell.suite != "levels"], folder, workers, console, scheduler)


def tables(measured: list[Row]) -> str:
    """Return all tables as Markdown."""
    sections = [levels.table(measured), method_profile.table(measured), agreement.table(measured), findings.tables(measured)]
    return "# Exact engines, measured\n\n" + "\n\n".join(section.rstrip() for section in sections) + "\n"
