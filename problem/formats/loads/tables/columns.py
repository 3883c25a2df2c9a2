"""Which columns of a table say window, layer, expert and tokens, however their names are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eplb_gap.problem.errors import InputError, listed, printable

ROLES = ("window", "layer", "expert", "tokens")
OPTIONAL = frozenset({"window"})
"""Without windows a table is one window."""
NAMES = {
    "window": ("window", "window_id", "window_index", "step", "step_id"),
    "layer": ("layer", "layer_id", "layer_index", "layer_idx"),
    "expert": ("expert", "expert_id", "expert_index", "expert_idx", "logical_expert", "logical_expert_id"),
    "tokens": ("tokens", "token_count", "num_tokens", "count", "counts", "load", "loads"),
}
"""What a column is for -> its names in the order of their weight, in small letters with underscores."""
NEEDED = "window (optional), layer, expert, tokens are needed, or such as layer_id, expert_id, count"
MAX_EXACT = 1 << 53
"""Larger floating-point numbers do not tell which integer was meant."""
SEPARATORS = {"\t": "tabs", ";": "semicolons"}
"""What other tables than CSV have between their entries."""
_MARKS = re.compile(r"[\s\-./]+")


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are read.

    Parameters
    ----------
    places : dict of str to int
        What a column is for -> its place.
    names : list of str
        Names of all columns, as written.
    """

    places: dict[str, int]
    names: list[str]

    @property
    def ignored(self) -> list[str]:
        """Names of the columns that are not read."""
        return [name for place, name in enumerate(self.names) if place not in self.places.values()]

    def notes(self) -> dict[str, Any]:
        """Return the notes of a recording: what was read as what, and what was not, where the table has more than it needs."""
        used = {role: printable(self.names[place][:80]) for role, place in self.places.items()}
        if not self.ignored:
            return {} if set(self.places) == set(ROLES) else {"columns": used}
        read = [name.strip() if plain_name(name) == role else f"{name.strip()} as {role}" for role, name in used.items()]
        left = listed(self.ignored)
        return {"columns": used, "ignored_columns": left, "notices": [f"columns read: {', '.join(read)}; ignored: {left}"]}


def plain_name(name: str) -> str:
    """Return a name in small letters, with underscores for spaces, hyphens and points."""
    return _MARKS.sub("_", name.strip().strip("\"'").strip().lower())


def found_columns(names: Sequence[str]) -> Columns | None:
    """Return the columns that say loads, or None if one is missing.

    Raises
    ------
    InputError
        If two columns have the same name for one of them.
    """
    plain = [plain_name(name) for name in names]
    places: dict[str, int] = {}
    for role, known in NAMES.items():
        name = next((name for name in known if name in plain), None)
        if name is None:
            if role in OPTIONAL:
                continue
            return None
        if plain.count(name) > 1:
            raise InputError(f"has the column {name!r} twice among {listed(names)}; {NEEDED}")
        places[role] = plain.index(name)
    return Columns(places, list(names))


def unlike(names: Sequence[str]) -> str:
    """Return what to say of the names in a header that are not those of loads: what they are, and what is needed."""
    for mark, what in SEPARATORS.items():
        if len(names) == 1 and mark in names[0]:
            parts = names[0].split(mark)
            needed = "commas between them are needed" if found_columns(parts) else f"separated by commas, {NEEDED}"
            return f"has the columns {listed(parts)}, separated by {what}; {needed}"
    return f"has the columns {listed(names)}; {NEEDED}"


def needed_columns(names: Sequence[str]) -> Columns:
    """Return the columns that say loads.

    Raises
    ------
    InputError
        If one is missing or there twice; the message is about the file, whose name comes before it.
    """
    found = found_columns(names)
    if found is None:
        raise InputError(unlike(names))
    return found
