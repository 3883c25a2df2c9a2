"""The errors of the package: one family, so that a caller can catch bad input without catching bugs."""

from __future__ import annotations

import reprlib
from collections.abc import Collection
from typing import Any

MAX_REASON = 200
"""Characters of what a library says that a message quotes."""
MAX_SIZE = 1 << 20
"""Largest number whose divisors are looked for to be named in a message."""


class InputError(ValueError):
    """An argument or a file is not what it must be; the message names it, what was found, what is allowed.

    Examples
    --------
    >>> from eplb_gap import Deployment, InputError
    >>> try:
    ...     Deployment(num_experts=4, num_slots=6, num_gpus=5)
    ... except InputError as error:
    ...     print(error)
    num_gpus is 5; a divisor of num_slots = 6 is needed: 3 or 6, or num_slots = 5 or 10
    """


class PlacementError(ValueError):
    """A map is not a legal placement; the message names the layer, the slot or expert, and the rule it breaks.

    Examples
    --------
    >>> from eplb_gap import Deployment, Placement, PlacementError, verify
    >>> try:
    ...     verify(Placement([[0, 0, 1, 1]], 3), [[5, 4, 3]], Deployment(3, 4, 2))
    ... except PlacementError as error:
    ...     print(error)
    layer 0: expert 2 has no replica; every expert needs at least one
    """


def require_kind(name: str, value: Any, kind: type) -> None:
    """Raise an InputError unless an argument is of the kind it must be, before an attribute of it is missed."""
    if not isinstance(value, kind):
        raise InputError(f"{name} is {shown(value)}; a {kind.__name__} is needed")


def reason(error: BaseException) -> str:
    """Return what a library says of a broken file, as part of one line: it may quote the file at any length."""
    text = printable(str(error).partition("\n")[0][: MAX_REASON + 1]).strip()
    text = text or type(error).__name__
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 3] + "..."


def next_divisors(value: int, whole: int) -> list[int]:
    """Return the divisors of a number that are next to one that is none, below and above; none of numbers that are no sizes."""
    if not value > 0 or not 0 < whole <= MAX_SIZE:
        return []
    below = next((one for one in range(min(value, whole), 0, -1) if whole % one == 0), None)
    above = next((one for one in range(value + 1, whole + 1) if whole % one == 0), None)
    return sorted({one for one in (below, above) if one is not None})


def next_multiples(value: int, part: int, least: int = 1) -> list[int]:
    """Return the multiples of a number that are next to one that is none, below and above, and at least so large."""
    below = value // part * part
    return [one for one in (below, below + part) if one >= least]


def such_as(*alternatives: tuple[str, list[int]]) -> str:
    """Return the end of a message that names the allowed numbers next to what was found, each list of them with its beginning."""
    told = [start + " or ".join(map(str, numbers)) for start, numbers in alternatives if numbers]
    return f": {', or '.join(told)}" if told else ""


def printable(text: str) -> str:
    """Return text as part of one line: what cannot be printed is a space."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def listed(names: Collection[str], most: int = 8) -> str:
    """Return names of a file as a message lists them: in one line, short however many and long they are."""
    said = [printable(name[:40]).strip() or "one without name" for name in list(names)[:most]]
    return ", ".join(said) + (f" and {len(names) - most} more" if len(names) > most else "")


_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2


def shown(value: Any) -> str:
    """Return a value of a file as a message quotes it: short however large and nested it is."""
    return _SHORT.repr(value)
