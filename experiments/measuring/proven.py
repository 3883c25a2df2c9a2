"""What a row's bounds rest on: what of it is optimal, what is only claimed to be, and of what the kind of proof was not kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from eplb_gap.experiments.measuring.rows import Row, fractions_in, leaves
from eplb_gap.problem.proofs import described_trust

NOT_KEPT = "kind not kept"
"""What is said of the proofs of rows that were published before their kinds were kept."""


def proofs(row: Row) -> list[str]:
    """Return the kind of proof of every layer of all windows of a row; :data:`NOT_KEPT` for each where it holds none."""
    kept = row.get("proof")
    return list(leaves(kept)) if isinstance(kept, list) else [NOT_KEPT] * len(row.lower)


def witnessed(proof: str) -> bool:
    """Return whether a bound that is proven so can be recomputed: no claim, and no bound whose kind was not kept."""
    return proof != NOT_KEPT and described_trust(proof) == "recomputed"


@dataclass(frozen=True)
class Closed:
    """Layers by what is known of their optimum.

    Parameters
    ----------
    layers : int
        All of them.
    optimal : int
        Makespan and a bound with a witness are the same fraction.
    claimed : int
        Makespan and a claim are.
    unknown : int
        Makespan and a bound are, of which the kind of proof was not kept.
    """

    layers: int
    optimal: int
    claimed: int
    unknown: int

    def __str__(self) -> str:
        parts = [f"{self.optimal}/{self.layers}"]
        parts += [f"{self.claimed} claimed"] if self.claimed else []
        parts += [f"{self.unknown} of a kind not kept"] if self.unknown else []
        return ", ".join(parts)


def makespans(row: Row) -> list[Fraction]:
    """Return the makespans of a solver's own maps, of all windows and layers; none where rows keep none."""
    return row.upper or fractions_in(row.get("solved"))


def met(row: Row) -> list[bool]:
    """Return for every layer of all windows of a solver's row whether its makespan equals its bound."""
    upper = makespans(row)
    if not upper:
        return [status == "optimal" for status in row["status"]]
    return [up == low for up, low in zip(upper, row.lower, strict=True)]


def closed(rows: Iterable[Row]) -> Closed:
    """Count the layers of solvers' rows: those whose makespan equals its bound, by what that rests on."""
    return count(pair for row in rows for pair in zip(proofs(row), met(row), strict=True))


def count(layers: Iterable[tuple[str, bool]]) -> Closed:
    """Count layers given as kind of proof and whether the makespan equals the bound."""
    found = list(layers)
    equal = [proof for proof, met in found if met]
    unknown, optimal = equal.count(NOT_KEPT), sum(map(witnessed, equal))
    return Closed(len(found), optimal, len(equal) - unknown - optimal, unknown)
