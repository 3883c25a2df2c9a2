"""Compare a fresh run with the published rows: what must be equal, what must intersect, what is only shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from experiments import rows
from experiments.rows import Row

FLOAT_TOLERANCE = 1e-12  # sums of the same numbers on another processor may differ in the last bits


@dataclass(frozen=True)
class Comparison:
    """Outcome of a comparison.

    Parameters
    ----------
    equal, intersecting : int
        Rows that repeat a deterministic result, and solver rows whose intervals meet the published ones.
    new : int
        Rows that are not published.
    problems : list of str
        One line per difference.
    """

    equal: int
    intersecting: int
    new: int
    problems: list[str]


def compare(fresh: list[Row], published: list[Row]) -> Comparison:
    """Compare rows by key; runtime rows are left to the runtime table.

    Heuristics and negative controls must repeat hash, placement, makespans, status and balancedness. Of solvers, an optimum
    must be the published one, and intervals [lower, upper] must intersect layer by layer. A row that failed differs.
    """
    known = {rows.key(row): row for row in published}
    equal = intersecting = new = 0
    problems: list[str] = []
    for row in fresh:
        if row["kind"] == "runtime":
            continue
        other = known.get(rows.key(row))
        name = " ".join(map(str, rows.key(row)))
        if rows.failed(row):
            problems.append(f"{name}: {row['status']}")
            continue
        if other is None:
            new += 1
            continue
        found = [f"{field} differs" for field in ("hash", "kind") if row[field] != other[field]]
        found += _solver_differences(row, other) if row["kind"] == "solver" else _exact_differences(row, other)
        problems += [f"{name}: {text}" for text in found]
        if not found:
            intersecting += row["kind"] == "solver"
            equal += row["kind"] != "solver"
    return Comparison(equal, intersecting, new, problems)


def _exact_differences(row: Row, other: Row) -> list[str]:
    found = [
        f"{field} is {row.get(field)}, published {other.get(field)}"
        for field in ("placement", "status", "duplicates")
        if row.get(field) != other.get(field)
    ]
    if row["upper"] != other["upper"]:
        found.append("makespans differ")
    for window in ("planning", "serving"):
        for metric, value in (row.get(window) or {}).items():
            if not math.isclose(value, other[window][metric], rel_tol=FLOAT_TOLERANCE):
                found.append(f"{window} balancedness ({metric}) is {value!r}, published {other[window][metric]!r}")
    return found


def _solver_differences(row: Row, other: Row) -> list[str]:
    found = []
    for layer, (low, up, low2, up2) in enumerate(zip(row["lower"], row["upper"], other["lower"], other["upper"], strict=True)):
        if Fraction(low) > Fraction(up2) or Fraction(low2) > Fraction(up):
            found.append(f"layer {layer}: interval [{low}, {up}] does not meet the published [{low2}, {up2}]")
    return found
