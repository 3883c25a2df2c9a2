"""Exact fractions as text, as every file and every ``--json`` of the project writes them: "p/q"."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction


def fraction(value: Fraction) -> str:
    """Return a fraction as "p/q"."""
    return f"{value.numerator}/{value.denominator}"


def fractions(values: Iterable[Fraction]) -> list[str]:
    """Return fractions as "p/q"."""
    return [fraction(value) for value in values]
