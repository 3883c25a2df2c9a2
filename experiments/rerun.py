"""Run a random sample of published cells again and compare: what does not depend on a clock must be equal."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import heuristic_bench, serving_bench, solver_bench, suites
from experiments.compare import FLOAT_TOLERANCE
from experiments.manifest import name
from experiments.row_schema import MEASURED, shape_of
from experiments.rows import Row, key
from experiments.runner import Cell, run_cells

MOST_SECONDS = 10.0
"""Cells that took longer are not drawn."""
TIMED = ("runtime", "timing", "level")
"""Kinds of rows that hold nothing but times and what depends on them."""


def cells() -> dict[tuple[Any, ...], Cell]:
    """Return every cell of the main job and the benches by the key of its row."""
    benches = (solver_bench, heuristic_bench, serving_bench)
    every = [*suites.protocol_cells(), *suites.gap_cells(), *(cell for bench in benches for cell in bench.cells())]
    return {cell.key: cell for cell in every}


def draw(published: list[Row], count: int, seed: int) -> list[Row]:
    """Return a random sample of the rows that can be run again within ``MOST_SECONDS`` each, in order of their keys."""
    known = cells()
    quick = [row for row in published if key(row) in known and row["kind"] not in TIMED and _seconds(row) < MOST_SECONDS]
    quick.sort(key=name)
    return sorted(random.Random(seed).sample(quick, min(count, len(quick))), key=name)


def rerun(chosen: list[Row], workers: int, console: Console) -> list[str]:
    """Run the cells of rows again and return what differs, one line each."""
    known = cells()
    with tempfile.TemporaryDirectory() as folder:
        fresh = run_cells([known[key(row)] for row in chosen], Path(folder), workers, console)
    return [f"{name(old)}: {text}" for new, old in zip(fresh, chosen, strict=True) for text in differences(new, old)]


def differences(fresh: Row, published: Row) -> list[str]:
    """Return the fields in which a row does not repeat the published one.

    Floats may differ by ``FLOAT_TOLERANCE``; of fields that a time limit decides, intervals [``lower``, ``upper``] must meet.
    """
    shape = shape_of(published)
    searched = shape.searched if shape else frozenset()
    names = (fresh.keys() | published.keys()) - MEASURED - searched
    found = [
        f"{field} is {_short(fresh.get(field))} when run again, published {_short(published.get(field))}"
        for field in sorted(names)
        if not _same(fresh.get(field), published.get(field))
    ]
    if {"lower", "upper"} <= searched and not found:
        sides = [list(_bounds(row[side])) for side in ("lower", "upper") for row in (fresh, published)]
        if len({len(side) for side in sides}) > 1:
            return ["another number of layers when run again"]
        for layer, (low, low_published, up, up_published) in enumerate(zip(*sides, strict=True)):
            if _above(low, up_published) or _above(low_published, up):
                text = (
                    f"layer {layer}: [{low}, {up}] when run again does not meet the published [{low_published}, {up_published}]"
                )
                found.append(text)
    return found


def _seconds(row: Row) -> float:
    return row.get("cell_wall_seconds", math.inf)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one.keys() - MEASURED)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=FLOAT_TOLERANCE, abs_tol=FLOAT_TOLERANCE)
    return type(one) is type(other) and one == other


def _above(lower: Fraction | float, upper: Fraction | float) -> bool:
    """Compare exactly where both are fractions."""
    exact = isinstance(lower, Fraction) and isinstance(upper, Fraction)
    return lower > upper and (exact or not math.isclose(lower, upper, rel_tol=FLOAT_TOLERANCE, abs_tol=FLOAT_TOLERANCE))


def _bounds(value: Any) -> Iterator[Fraction | float]:
    """Yield the numbers in lists and objects of any depth, "p/q" as fractions."""
    if isinstance(value, list):
        for item in value:
            yield from _bounds(item)
    elif isinstance(value, dict):
        for _, item in sorted(value.items()):
            yield from _bounds(item)
    else:
        yield Fraction(value) if isinstance(value, str) else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
