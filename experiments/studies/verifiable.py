"""What `solve` proves in the published rows: optima and bounds that a reader can recompute, and what rests on a word."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.measuring.proven import NOT_KEPT, makespans, met, proofs, witnessed
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.studies import (
    baseline_profile,
    decomposition,
    gaps,
    head_to_head,
    held_out,
    levels,
    method_profile,
    pcmax,
    prices,
    protocol,
    public_gaps,
    public_levels,
    public_serving,
    recommendations,
    redundancy,
    regimes,
    shapes,
)
from eplb_gap.experiments.studies.study import Drawn, Study
from eplb_gap.problem.metrics import optimality_gap

PLAIN = (
    protocol.SUITE,
    gaps.SUITE,
    levels.SUITE,
    pcmax.SUITE,
    public_levels.SUITE,
    public_gaps.SUITE,
    public_serving.SUITE,
    method_profile.SUITE,
    baseline_profile.SUITE,
    prices.SUITE,
    head_to_head.SUITE,
    shapes.SUITE,
    recommendations.SUITE,
    redundancy.SUITE,
    held_out.SUITE,
)
SUITES = (*PLAIN, regimes.SUITE, decomposition.SUITE)
"""Every suite whose cells call `solve` and whose rows say what they were bounded by."""
TEXTBOOK = frozenset((*method_profile.METHODS, *baseline_profile.METHODS)) - {"auto"}
"""Methods left out: compact models give nothing but claims."""
REPLAYED = "replayed search"


@dataclass(frozen=True)
class Layer:
    """One bound of a solve.

    Parameters
    ----------
    proof : str
        Its kind, as rows keep it.
    met : bool
        Whether the makespan equals it.
    gap : float
        Of makespan to bound; 0 where rows keep no makespan.
    """

    proof: str
    met: bool
    gap: float


def layers(row: Row) -> list[Layer]:
    """Return all bounds of a solver's row."""
    upper = makespans(row) or row.lower
    found = zip(proofs(row), met(row), upper, row.lower, strict=True)
    return [Layer(proof, equal, optimality_gap(up, low)) for proof, equal, up, low in found]


def line(title: str, solved: Iterable[Row]) -> list[str]:
    """Return a line of the table: layers, optimal by witness and by log, bounded by witness, claims by name, not kept."""
    found = [layer for row in solved for layer in layers(row)]
    good = [layer for layer in found if witnessed(layer.proof)]
    optimal = [layer for layer in good if layer.met]
    logged = sum(REPLAYED in layer.proof for layer in optimal)
    bounded = [layer.gap for layer in good if not layer.met]
    unknown = sum(layer.proof == NOT_KEPT for layer in found)
    return [
        title,
        str(len(found)),
        str(len(optimal) - logged),
        str(logged),
        f"{len(bounded)} ({100 * max(bounded):.3f} %)" if bounded else "0",
        claims(layer.proof for layer in found if layer.proof != NOT_KEPT and not witnessed(layer.proof)),
        str(unknown),
    ]


def claims(kinds: Iterable[str]) -> str:
    """Return how many bounds rest on which claim."""
    named = list(kinds)
    return ", ".join(f"{named.count(kind)} {kind}" for kind in sorted(set(named))) or "0"


def of_decomposition(measured: Rows) -> list[str]:
    """Return the line of rows that keep counts of their proofs: bounds of whole models, of which no layer is called optimal."""
    rows = measured.where(suite=decomposition.SUITE)
    kept: dict[str, int] = {}
    for of_level in (of for row in rows for of in row.get("proof", {}).values()):
        for kind, number in of_level.items():
            kept[kind] = kept.get(kind, 0) + number
    good = sum(number for kind, number in kept.items() if witnessed(kind))
    named = ", ".join(f"{number} {kind}" for kind, number in sorted(kept.items()) if not witnessed(kind))
    unknown = sum("proof" not in row for row in rows)
    return [
        "decomposition (sums of layers)",
        str(sum(kept.values())),
        "-",
        "-",
        str(good),
        named or "0",
        f"{unknown} rows" if unknown else "0",
    ]


def table(measured: Rows) -> str:
    """Return the number of layers by suite and by what is proven of them, as Markdown."""
    body = []
    for suite in PLAIN:
        solved = (row for row in measured.where(suite=suite) if "lower" in row and row["method"] not in TEXTBOOK)
        body.append(line(suite, (row for row in solved if isinstance(row["lower"], list))))
    solved_regimes = measured.where(suite=regimes.SUITE, kind="solver")
    for name in regimes.REGIMES:
        body.append(line(f"regimes, {name}", (row for row in solved_regimes if regimes.regime(row) == name)))
    body.append(of_decomposition(measured))
    header = [
        "suite",
        "layers",
        "optimal by witness",
        "optimal by replayed log",
        "bounded by witness (worst gap)",
        "resting on a claim",
        NOT_KEPT,
    ]
    return markdown(header, body)


def section(measured: Rows) -> str:
    """Return the table with its heading, for the tables of the exact engines."""
    return (
        "## What `solve` proves\n\nLayers of all windows and instances by suite, of all methods but the textbook models. A "
        "*witness* is recomputed by the checker, a *log* of an exhausted search is replayed by it; a *claim* is a search that "
        "was not logged or a solver's word, and nothing that rests on one is called optimal. *Kind not kept*: rows measured "
        "before rows kept the kind of proof.\n\n" + table(measured)
    )


STUDY = Study(levels.SUITE, job="solvers", blocks={"verifiable": Drawn(SUITES, table)})
