"""Run a random sample of published cells again and compare: what does not depend on a clock must be equal."""

from __future__ import annotations

import math
import random
import tempfile
from pathlib import Path

from rich.console import Console

from eplb_gap.experiments.loads.public_counts import VARIABLE
from eplb_gap.experiments.loads.public_sources import check_given
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.rows import Key, Row, Rows
from eplb_gap.experiments.measuring.runner import run_cells
from eplb_gap.experiments.published.compare import TIMED, differences
from eplb_gap.experiments.published.manifest import name
from eplb_gap.experiments.studies import jobs

FOLDER = "folder"
"""Argument of every cell that measures on public loads."""
MOST_SECONDS = 10.0
"""Cells that took longer are not drawn."""
MOST_PUBLIC = 2
"""Rows on public loads that a sample has besides, where their folder is given."""


def cells() -> dict[Key, Cell]:
    """Return every cell of every job by the key of its row."""
    return {cell.key: cell for of_job in jobs.cells().values() for cell in of_job}


def draw(published: Rows, count: int, seed: int) -> Rows:
    """Return a random sample of the rows that can be run again within ``MOST_SECONDS`` each, in order of their keys.

    Where the folder of public loads is given, up to ``MOST_PUBLIC`` rows on them are drawn besides ``count`` others.
    """
    known = cells()
    quick = [row for row in published if row.key in known and row["kind"] not in TIMED and _seconds(row) < MOST_SECONDS]
    quick.sort(key=name)
    ours = [row for row in quick if FOLDER not in known[row.key].arguments]
    public = [row for row in quick if known[row.key].arguments.get(FOLDER) is not None]
    drawn = random.Random(seed)
    chosen = drawn.sample(ours, min(count, len(ours)))
    return Rows(sorted([*chosen, *drawn.sample(public, min(count, MOST_PUBLIC, len(public)))], key=name))


def left_out(published: Rows) -> str:
    """Return what is published but cannot be run again as the folder of public loads is not given, or ""."""
    known = cells()
    without = [row for row in published if row.key in known and known[row.key].arguments.get(FOLDER, "") is None]
    return f"{len(without)} rows on public loads, as {VARIABLE} names no folder" if without else ""


def rerun(chosen: Rows, workers: int, console: Console) -> list[str]:
    """Run the cells of rows again and return what differs, one line each."""
    check_given()
    known = cells()
    with tempfile.TemporaryDirectory() as folder:
        fresh = run_cells([known[row.key] for row in chosen], Path(folder), workers, console)
    return [f"{name(old)}: {text}" for new, old in zip(fresh, chosen, strict=True) for text in differences(new, old)]


def _seconds(row: Row) -> float:
    return float(row.get("cell_wall_seconds", math.inf))
