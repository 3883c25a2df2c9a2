"""What the rows of every study hold, from the studies' own records."""

from __future__ import annotations

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.measuring.row_schema import COMMON, COMMON_OPTIONAL, Shape
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.experiments.studies.catalogue import STUDIES

README_BLOCK = "row schema"
"""Name of the part of results/README.md that :func:`table` fills."""


def shapes(suite: str) -> list[Shape]:
    """Return the shapes of a suite's rows."""
    return [shape for study in STUDIES.values() if study.suite == suite for shape in study.shapes]


def shape_of(row: Row) -> Shape | None:
    """Return the shape that a row's suite and kind ask for, the nearest if there are several, or None."""
    candidates = [shape for shape in shapes(row.get("suite", "")) if shape.kind == row.get("kind")]
    return min(candidates, key=lambda shape: len(shape.problems(row)), default=None)


def problems(row: Row) -> list[str]:
    """Return what is wrong with a row's fields, one line each."""
    shape = shape_of(row)
    return [f"suite {row.get('suite')!r} has no rows of kind {row.get('kind')!r}"] if shape is None else shape.problems(row)


def table() -> str:
    """Return the schema as Markdown: the fields of all rows, then those of every kind, with all suites that share them."""
    body = [["all", "", Shape("", COMMON, COMMON_OPTIONAL).described()]]
    sharing: list[tuple[Shape, list[str]]] = []
    for study in STUDIES.values():
        for shape in study.shapes:
            suites = next((suites for known, suites in sharing if known == shape), None)
            if suites is None:
                sharing.append((shape, [study.suite]))
            else:
                suites.append(study.suite)
    body += [[", ".join(suites), shape.kind, shape.described()] for shape, suites in sharing]
    return markdown(["suites", "kind", "fields"], body)
