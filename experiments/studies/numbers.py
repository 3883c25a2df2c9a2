"""Numbers that the paper's text states: which rows each comes from, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.measuring.statistics import Interval

Pattern = tuple[str, str, str]
"""Suite, instance and method of rows; in the latter two ``*`` stands for anything."""


@dataclass(frozen=True)
class Number:
    """A number of the paper.

    Parameters
    ----------
    patterns : tuple of Pattern
        The rows it is computed from; the computation sees no others.
    compute : callable
        From those rows to the text that the paper prints.
    """

    patterns: tuple[Pattern, ...]
    compute: Callable[[Rows], str]


def chosen(measured: Iterable[Row], patterns: Iterable[Pattern]) -> Rows:
    """Return the rows that match one of the patterns.

    Raises
    ------
    LookupError
        If a pattern matches none.
    """
    wanted, found = list(patterns), list(measured)
    for pattern in wanted:
        if not any(matches(row, [pattern]) for row in found):
            raise LookupError(f"results/ holds no row of {' | '.join(pattern)}")
    return Rows(row for row in found if matches(row, wanted))


def matches(row: Row, patterns: Iterable[Pattern]) -> bool:
    """Return whether a row matches one of the patterns."""
    return any(
        row["suite"] == suite and fnmatchcase(row["instance"], instance) and fnmatchcase(row["method"], method)
        for suite, instance, method in patterns
    )


def percent(value: float, digits: int = 2) -> str:
    """Return a part as a number of hundredths."""
    return f"{100 * value:.{digits}f}"


def span(values: Iterable[float], digits: int = 0, sign: bool = False) -> str:
    """Return least to largest as text; one number where both print alike."""
    found = list(values)
    low, high = (_rounded(value, digits, sign) for value in (min(found), max(found)))
    return low if low == high else f"{low} to {high}"


def _rounded(value: float, digits: int, sign: bool) -> str:
    """Return a number as text with a typographic minus, and none before what rounds to zero."""
    return f"{value:{'+' if sign else ''}z.{digits}f}".replace("-", "\u2212")


def interval_text(found: Interval, digits: int, sign: bool = False) -> str:
    """Return a mean with its interval in brackets; only the mean where both ends print alike or there is no interval."""
    if math.isnan(found.low):
        return _rounded(found.mean, digits, sign)
    mean, low, high = (_rounded(value, digits, sign) for value in found)
    return mean if low == high else f"{mean} [{low}, {high}]"
