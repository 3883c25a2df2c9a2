"""Every method in every regime, what redundant slots buy, and held-out loads, in one run: ``eplb-gap bench regimes``."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.experiments.measuring.runner import run_cells
from eplb_gap.experiments.studies import held_out, redundancy, regimes

MODULES = (regimes, redundancy, held_out)
SUITES = tuple(module.SUITE for module in MODULES)


def cells() -> list[Cell]:
    """Return all cells."""
    return [cell for module in MODULES for cell in module.cells()]


def run(folder: Path, workers: int, console: Console, scheduler: str | None = None) -> list[Row]:
    """Run what is missing in ``folder`` and return all rows.

    Parameters
    ----------
    folder : Path
    workers : int
        Processes; no time is measured against a level.
    console : Console
    scheduler : str, optional
        Address of a Dask scheduler whose workers run the cells instead.
    """
    return run_cells(cells(), folder, workers, console, scheduler)


def tables(measured: list[Row]) -> str:
    """Return all tables as Markdown."""
    return "# Regimes, measured\n\n" + "\n\n".join(module.table(measured).rstrip() for module in MODULES) + "\n"


def readme(measured: list[Row]) -> str:
    """Return the README's short form: gaps by regime, what is left on held-out loads, what redundant slots buy."""
    return f"{regimes.readme_table(measured)}\n\n{held_out.advice(measured)}\n{redundancy.advice(measured)}"
