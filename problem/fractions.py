"""Exact fractions as text, as every file and every ``--json`` of the project writes them: "p/q"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from eplb_gap.problem.errors import InputError, shown

MAX_CHARACTERS = 2000
"""Longest text that is read: more digits than any product of counts and loads of this project has."""
_TEXT = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:/([1-9][0-9]*))?")


def fraction(value: Fraction) -> str:
    """Return a fraction as "p/q"."""
    return f"{value.numerator}/{value.denominator}"


def fractions(values: Iterable[Fraction]) -> list[str]:
    """Return fractions as "p/q"."""
    return [fraction(value) for value in values]


def parse(text: Any, where: str = "a value", signed: bool = False) -> Fraction:
    """Read a fraction that a file holds: "p/q" in lowest terms, or "p", in decimal digits and nothing else.

    :class:`fractions.Fraction` reads "1e999999999" as well, for hours.

    Parameters
    ----------
    text : str
    where : str
        What the message calls it.
    signed : bool, default False
        Whether it may be negative.

    Returns
    -------
    Fraction

    Raises
    ------
    InputError
        If it is no such text or has more than :data:`MAX_CHARACTERS` characters.

    Examples
    --------
    >>> parse("359/2")
    Fraction(359, 2)
    """
    found = _TEXT.fullmatch(text) if isinstance(text, str) and len(text) <= MAX_CHARACTERS else None
    if found is None or found[1] == "-0" or (found[1].startswith("-") and not signed):
        raise InputError(f"{where} is {shown(text)}; a fraction like '359/2' is needed")
    value = Fraction(int(found[1]), int(found[2] or 1))
    if value.denominator != int(found[2] or 1):
        raise InputError(f"{where} is {shown(text)}; a fraction like '359/2' in lowest terms is needed")
    return value
