"""Compare fresh rows with the published ones: what must be equal, what must intersect, what is only shown."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from eplb_gap.experiments.measuring.row_schema import MEASURED
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.studies.public_levels import NOT_GIVEN
from eplb_gap.experiments.studies.schema import shape_of

FLOAT_TOLERANCE = 1e-12  # sums of the same numbers on another processor may differ in the last bits
TIMED = ("runtime", "timing", "level")
"""Kinds of rows that hold nothing but times and what depends on them."""


@dataclass(frozen=True)
class Comparison:
    """Outcome of a comparison.

    Parameters
    ----------
    equal, intersecting : int
        Rows that repeat a deterministic result, and rows of time-limited solves whose intervals meet the published ones.
    new : int
        Rows that are not published.
    left_out : int
        Rows that are published on public loads, which this run was not given.
    problems : list of str
        One line per difference.
    """

    equal: int
    intersecting: int
    new: int
    left_out: int
    problems: list[str]


def compare(fresh: Rows, published: Rows) -> Comparison:
    """Compare rows by key; rows that hold times are left to their tables. A row that failed differs."""
    known = {row.key: row for row in published}
    equal = intersecting = new = left_out = 0
    problems: list[str] = []
    for row in fresh:
        if row["kind"] in TIMED:
            continue
        other = known.get(row.key)
        if row.failed:
            problems.append(f"{row.key}: {row['status']}")
        elif other is None:
            new += 1
        elif row.get("status") == NOT_GIVEN != other.get("status"):
            left_out += 1
        elif found := differences(row, other):
            problems += [f"{row.key}: {text}" for text in found]
        else:
            shape = shape_of(other)
            searched = shape is not None and bool(shape.searched)
            intersecting += searched
            equal += not searched
    return Comparison(equal, intersecting, new, left_out, problems)


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
