"""What a published row holds: the fields of every kind with their types, and which of them a rerun must repeat."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.measuring.rows import Row

README_BLOCK = "row schema"
"""Name of the part of results/README.md that :func:`table` fills."""
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
SOLVED = {"upper": "list of p/q", "lower": "list of p/q", "gap": "list of number", "proof": "list of text"}
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
    "cpu",
    "cores",
}
"""Fields of any row, at any depth, that differ from run to run or from machine to machine."""


@dataclass(frozen=True)
class Shape:
    """The fields of the rows of some suites and one kind, beside the common ones.

    Parameters
    ----------
    suites : tuple of str
    kind : str
    fields : dict
        Type by name.
    optional : dict
        The same for fields that not every row has.
    searched : frozenset of str
        Fields that depend on how far a solve got within its time limit; of these, intervals [``lower``, ``upper``] of two runs
        meet and the others may differ.
    """

    suites: tuple[str, ...]
    kind: str
    fields: dict[str, str]
    optional: dict[str, str]
    searched: frozenset[str] = frozenset()

    def problems(self, row: Row) -> list[str]:
        """Return what is wrong with a row, one line each."""
        required = COMMON | self.fields
        found = [f"lacks {name}" for name in sorted(required.keys() - row.keys())]
        found += [
            f"has a field {name} that such rows do not have" for name in sorted(row.keys() - required - self.optional.keys())
        ]
        return found + [
            f"{name} is no {type_name}"
            for name, type_name in (required | self.optional).items()
            if name in row and not fits(row[name], type_name)
        ]


def _solver(suites: tuple[str, ...], **more: str) -> Shape:
    fields = {**CELL, **CALL, **SOLVED, **more}
    return Shape(suites, "solver", fields, {"phy2log": MAP}, frozenset({*SOLVED, "status", "placement", "phy2log"}))


def _finding(suite: str, fields: dict[str, str], *searched: str) -> Shape:
    return Shape((suite,), "finding", CELL | fields, {}, frozenset(searched))


PLANNED = {**CELL, **CALL, "duplicates": "integer", "upper": "makespans"}
NUMBERS, NESTED, SERVED = "list of number", "list of list of number", "object of list of number"
SHAPES = (
    _solver(("protocol", "gap", "recommendations", "levels")),
    _solver(("profile",), family="text", trajectory=NESTED),
    Shape(("protocol",), "heuristic", PLANNED | BALANCE, {}),
    Shape(("gap",), "heuristic", PLANNED, {"phy2log": MAP}),
    Shape(("regimes",), "heuristic", PLANNED | {"family": "text"}, {"serving": "number"}),
    Shape(
        ("regimes",),
        "solver",
        {**CELL, **CALL, **SOLVED, "family": "text"},
        {"serving": "number"},
        frozenset({*SOLVED, "status", "placement", "serving"}),
    ),
    Shape(("recommendations",), "heuristic", PLANNED | BALANCE, {"seconds": "object of number"}),
    Shape(
        ("protocol",),
        "negative control",
        CELL | BALANCE | {"deployment": "object of anything", "policy": "text", "upper": "null"},
        {},
    ),
    Shape(
        ("heuristics", "redundancy", "held_out"),
        "heuristic",
        CELL | {"upper": "list of makespans", "duplicates": "list of integer", "planning": NUMBERS, "serving": NUMBERS},
        {},
    ),
    Shape(
        ("heuristics",),
        "solver",
        CELL | {"upper": "list of list of p/q", "lower": "list of list of p/q"},
        {},
        frozenset({"upper", "lower"}),
    ),
    Shape(
        ("redundancy", "held_out"),
        "solver",
        CELL
        | {
            "upper": "list of list of p/q",
            "lower": "list of list of p/q",
            "limit": NUMBERS,
            "planning": NUMBERS,
            "serving": NUMBERS,
        },
        {},
        frozenset({"upper", "lower", "limit", "planning", "serving", "status"}),
    ),
    Shape(("held_out",), "history", CELL | {"planning": NUMBERS, "serving": NUMBERS}, {}),
    Shape(
        ("shapes",),
        "heuristic",
        CELL | {"lower": "list of p/q", "methods": "object of object of anything"},
        {},
        frozenset({"lower", "status"}),
    ),
    Shape(("scaling",), "runtime", CELL | {"slots": "integer", "seconds_per_layer": "object of number"}, {}),
    Shape(
        ("runtime", "heuristic_seconds"),
        "runtime",
        {"seconds": NUMBERS, "median_seconds": "number", "ratio": "number"},
        {"argsort_seconds": "number"},
    ),
    Shape(("serving_seconds",), "timing", CELL | {"layers": "integer", "seconds": SERVED}, {}),
    Shape(
        ("levels",),
        "level",
        CELL | {"deployment": "object of anything", "gap": NUMBERS, "seconds": NUMBERS},
        {},
        frozenset({"gap", "status"}),
    ),
    Shape(
        ("agreement",),
        "agreement",
        CELL
        | {
            "wall_seconds": "number",
            "instances": "integer",
            "compared": "object of integer",
            "disagreements": "list of object of anything",
        },
        {},
    ),
    _finding("findings", {"upper": "list of p/q", "lower": "list of p/q", "gap": NUMBERS}, "upper", "lower", "gap", "status"),
    _finding(
        "findings",
        {
            "upper": "list of p/q",
            "lower": "list of p/q",
            "mean": "list of p/q",
            "simple": "list of p/q",
            "programs": "object of list of p/q",
        },
        "upper",
        "lower",
        "status",
    ),
    _finding("findings", {"excess": NUMBERS, "hot": "list of flag"}),
    _finding(
        "decomposition",
        {"excess": "p/q", "steps": "object of p/q", "lower": "object of number", "upper": "object of number"},
        "steps",
        "lower",
        "upper",
    ),
    _finding("elastic", {"gaps": NUMBERS, "served": NUMBERS}),
    _finding("history", {"served": SERVED, "forecasts": "list of text", "unbeaten": "integer"}),
    _finding(
        "migration",
        {"full": NUMBERS, "kept": NUMBERS, "new": NUMBERS, "planned": NUMBERS, "moved": "list of integer", "replicas": "integer"},
    ),
    _finding(
        "relabelling",
        {
            "moved": "list of integer",
            "moved_relabelled": "list of integer",
            "slots_changed": "list of integer",
            "replicas": "integer",
        },
    ),
    _finding(
        "sample_average",
        {"gaps": NUMBERS, "bound_gaps": NUMBERS, "proven": "object of integer", "contradictions": "list of text"},
        "proven",
    ),
    _finding("steps", {"by_step": NUMBERS, "of_window": NUMBERS, "quantiles": NESTED}),
    _finding("token_split", {"served": SERVED, "gap_to_certificate": "number", "difference_to_lp": "number"}),
)


def shape_of(row: Row) -> Shape | None:
    """Return the shape that a row's suite and kind ask for, the nearest if there are several, or None."""
    candidates = [shape for shape in SHAPES if row.get("suite") in shape.suites and row.get("kind") == shape.kind]
    return min(candidates, key=lambda shape: len(shape.problems(row)), default=None)


def problems(row: Row) -> list[str]:
    """Return what is wrong with a row's fields, one line each."""
    shape = shape_of(row)
    return [f"suite {row.get('suite')!r} has no rows of kind {row.get('kind')!r}"] if shape is None else shape.problems(row)


def fits(value: Any, type_name: str) -> bool:
    """Return whether a JSON value is of a type."""
    if " or " in type_name:
        return any(fits(value, part) for part in type_name.split(" or "))
    if type_name.startswith("list of "):
        return isinstance(value, list) and all(fits(item, type_name.removeprefix("list of ")) for item in value)
    if type_name.startswith("object of "):
        return isinstance(value, dict) and all(fits(item, type_name.removeprefix("object of ")) for item in value.values())
    return LEAVES[type_name](value)


def table() -> str:
    """Return the schema as Markdown: the fields of all rows, then those of every kind; in brackets what some rows lack."""
    body = [["all", "", ", ".join(f"`{name}` {type_name}" for name, type_name in COMMON.items())]]
    for shape in SHAPES:
        fields = [f"`{name}`{'*' * (name in shape.searched)} {type_name}" for name, type_name in shape.fields.items()]
        fields += [f"[`{name}` {type_name}]" for name, type_name in shape.optional.items()]
        body.append([", ".join(shape.suites), shape.kind, ", ".join(fields)])
    return markdown(["suites", "kind", "fields"], body)
