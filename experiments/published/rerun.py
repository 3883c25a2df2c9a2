"""Run a random sample of published cells again and compare: what does not depend on a clock must be equal."""

from __future__ import annotations

import math
import random
import tempfile
from pathlib import Path

from rich.console import Console

from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.rows import Key, Row, Rows
from eplb_gap.experiments.measuring.runner import run_cells
from eplb_gap.experiments.published.compare import TIMED, differences
from eplb_gap.experiments.published.manifest import name
from eplb_gap.experiments.studies import jobs

MOST_SECONDS = 10.0
"""Cells that took longer are not drawn."""


def cells() -> dict[Key, Cell]:
    """Return every cell of every job by the key of its row."""
    return {cell.key: cell for of_job in jobs.cells().values() for cell in of_job}


def draw(published: Rows, count: int, seed: int) -> Rows:
    """Return a random sample of the rows that can be run again within ``MOST_SECONDS`` each, in order of their keys."""
    known = cells()
    quick = [row for row in published if row.key in known and row["kind"] not in TIMED and _seconds(row) < MOST_SECONDS]
    quick.sort(key=name)
    return Rows(sorted(random.Random(seed).sample(quick, min(count, len(quick))), key=name))


def rerun(chosen: Rows, workers: int, console: Console) -> list[str]:
    """Run the cells of rows again and return what differs, one line each."""
    known = cells()
    with tempfile.TemporaryDirectory() as folder:
        fresh = run_cells([known[row.key] for row in chosen], Path(folder), workers, console)
    return [f"{name(old)}: {text}" for new, old in zip(fresh, chosen, strict=True) for text in differences(new, old)]


def _seconds(row: Row) -> float:
    return float(row.get("cell_wall_seconds", math.inf))
