"""The fields of rows with their types, what rows of one kind hold, and which fields a rerun must repeat."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from eplb_gap.experiments.measuring.rows import Row

FRACTION = re.compile(r"\d+/[1-9]\d*|-[1-9]\d*/[1-9]\d*")
LEAVES: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "flag": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value),
    "p/q": lambda value: isinstance(value, str) and FRACTION.fullmatch(value) is not None,
    "null": lambda value: value is None,
    "makespans": lambda value: value is None or fits(value, "list of p/q"),
    "anything": lambda value: True,
}
"""Types by name; ``list of T``, ``object of T`` and ``T or T`` are made of them. Makespans are null where a map is illegal."""

COMMON = {
    "suite": "text",
    "instance": "text",
    "method": "text",
    "seed": "integer",
    "kind": "text",
    "status": "text or list of text",
    "hash": "text",
    "parameters": "object of anything",
    "versions": "object of text",
    "revision": "text",
    "cpu": "text",
    "cores": "integer",
    "timestamp": "text",
}
COMMON_OPTIONAL = {"code": "text"}
"""Rows published before it was kept say no more than their revision."""
CELL = {"cell_wall_seconds": "number", "cell_cpu_seconds": "number"}
CALL = {
    "wall_seconds": "number",
    "cpu_seconds": "number",
    "deployment": "object of anything",
    "policy": "text",
    "placement": "text",
}
MAP = "list of list of integer"
BALANCE = {"planning": "object of number", "serving": "object of number or null"}
TRUST = {"trust": "object of integer"}
PROVEN = {"proof": "list of text", **TRUST}
"""Fields of :func:`eplb_gap.experiments.measuring.solve_cells.proof_fields` for one window."""
WINDOWS_PROVEN = {"proof": "list of list of text", **TRUST}
"""The same for several windows."""
SOLVED = {"upper": "list of p/q", "lower": "list of p/q", "gap": "list of number", **PROVEN}
MEASURED = {
    *CELL,
    "wall_seconds",
    "cpu_seconds",
    "seconds",
    "argsort_seconds",
    "median_seconds",
    "seconds_per_layer",
    "ms_per_layer",
    "ratio",
    "trajectory",
    "difference_to_lp",
    "timestamp",
    "versions",
    "revision",
    "code",
    "cpu",
    "cores",
}
"""Fields of any row, at any depth, that differ from run to run or from machine to machine."""


@dataclass(frozen=True)
class Shape:
    """The fields of a suite's rows of one kind, beside the common ones.

    Parameters
    ----------
    kind : str
    fields : dict
        Type by name.
    optional : dict
        The same for fields that not every row has.
    searched : frozenset of str
        Fields that depend on how far a solve got within its time limit; of these, intervals [``lower``, ``upper``] of two runs
        meet and the others may differ.
    """

    kind: str
    fields: dict[str, str]
    optional: dict[str, str] = field(default_factory=dict)
    searched: frozenset[str] = frozenset()

    def problems(self, row: Row) -> list[str]:
        """Return what is wrong with a row, one line each."""
        required, optional = COMMON | self.fields, COMMON_OPTIONAL | self.optional
        found = [f"lacks {name}" for name in sorted(required.keys() - row.keys())]
        found += [f"has a field {name} that such rows do not have" for name in sorted(row.keys() - required - optional.keys())]
        return found + [
            f"{name} is no {type_name}"
            for name, type_name in (required | optional).items()
            if name in row and not fits(row[name], type_name)
        ]

    def described(self) -> str:
        """Return the fields as Markdown; a star for those that a time limit decides, brackets for those that some rows lack."""
        fields = [f"`{name}`{'*' * (name in self.searched)} {type_name}" for name, type_name in self.fields.items()]
        return ", ".join([*fields, *(f"[`{name}` {type_name}]" for name, type_name in self.optional.items())])


NUMBERS, NESTED, SERVED = "list of number", "list of list of number", "object of list of number"
PLANNED = {**CELL, **CALL, "duplicates": "integer", "upper": "makespans"}
"""Fields of :func:`eplb_gap.experiments.measuring.solve_cells.plan`."""
WINDOWS_PLANNED = Shape(
    "heuristic",
    CELL | {"upper": "list of makespans", "duplicates": "list of integer", "planning": NUMBERS, "serving": NUMBERS},
)
"""Rows of :func:`eplb_gap.experiments.measuring.solve_cells.planned_row`."""
WINDOWS_BOUNDED = Shape(
    "solver",
    CELL
    | {
        "upper": "list of list of p/q",
        "lower": "list of list of p/q",
        **WINDOWS_PROVEN,
        "limit": NUMBERS,
        "planning": NUMBERS,
        "serving": NUMBERS,
    },
    searched=frozenset({"upper", "lower", *WINDOWS_PROVEN, "limit", "planning", "serving", "status"}),
)
"""Rows of :func:`eplb_gap.experiments.measuring.solve_cells.bounded_row`."""
TIMES = Shape("runtime", {"seconds": NUMBERS, "median_seconds": "number", "ratio": "number"}, {"argsort_seconds": "number"})
"""Rows of :class:`eplb_gap.experiments.measuring.runtime.Timing`."""


def solver(**more: str) -> Shape:
    """Return the shape of rows of :func:`eplb_gap.experiments.measuring.solve_cells.solver_cell`, with more fields."""
    searched = frozenset({*SOLVED, "status", "placement", "phy2log"})
    return Shape("solver", {**CELL, **CALL, **SOLVED, **more}, {"phy2log": MAP}, searched)


def finding(fields: dict[str, str], *searched: str) -> Shape:
    """Return the shape of rows that answer a question of their own."""
    return Shape("finding", CELL | fields, searched=frozenset(searched))


def fits(value: Any, type_name: str) -> bool:
    """Return whether a JSON value is of a type."""
    if " or " in type_name:
        return any(fits(value, part) for part in type_name.split(" or "))
    if type_name.startswith("list of "):
        return isinstance(value, list) and all(fits(item, type_name.removeprefix("list of ")) for item in value)
    if type_name.startswith("object of "):
        return isinstance(value, dict) and all(fits(item, type_name.removeprefix("object of ")) for item in value.values())
    return LEAVES[type_name](value)
