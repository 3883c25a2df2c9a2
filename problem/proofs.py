"""What every kind of lower bound rests on, and how it is recomputed: the one list of proofs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from eplb_gap.problem.bounds.bounds import (
    Bound,
    apportionment_bound,
    capacity_bound,
    forced_counts_value,
    mean_bound,
    slot_counting_value,
)
from eplb_gap.problem.bounds.exhausted import replayed_value
from eplb_gap.problem.bounds.pairing_dual import pairing_value
from eplb_gap.problem.bounds.pairing_tree import tree_value
from eplb_gap.problem.bounds.pattern_dual import pattern_value
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.fractions import parse
from eplb_gap.problem.instance import Instance

Trust = Literal["recomputed", "search", "solver"]
TRUSTS: tuple[Trust, ...] = ("recomputed", "search", "solver")
"""From nothing that must be believed to the word of a solver."""


@dataclass(frozen=True)
class Proof:
    """A kind of proof of a lower bound.

    Parameters
    ----------
    kind : str
        ``Bound.kind`` of the bounds that are proven so.
    trust : {"recomputed", "search", "solver"}
        What a reader must believe: nothing, since the kernel recomputes the bound; that a search of this project left nothing
        out; or a solver's word.
    value : callable, optional
        ``value(instance, witness)``: the largest makespan that a witness rules out on a flat instance, recomputed exactly; raises
        InputError for a witness that proves nothing. None where there is nothing to recompute; for "hierarchical", which
        :mod:`eplb_gap.problem.certificate` takes apart into its nodes; and for bounds on a history's
        average (:mod:`eplb_gap.problem.bounds.sample_average`), which no certificate holds.
    """

    kind: str
    trust: Trust
    value: Callable[[Instance, Mapping[str, Any]], Fraction] | None = None


def _slot_counting(instance: Instance, witness: Mapping[str, Any]) -> Fraction:
    return slot_counting_value(instance, parse(witness["refuted"], "refuted"), parse(witness["above"], "above"))


def _forced_counts(instance: Instance, witness: Mapping[str, Any]) -> Fraction:
    return forced_counts_value(instance, parse(witness["threshold"], "threshold") if "threshold" in witness else None)


PROOFS: dict[str, Proof] = {
    proof.kind: proof
    for proof in (
        Proof("mean", "recomputed", lambda instance, _: mean_bound(instance).value),
        Proof("capacity", "recomputed", lambda instance, _: capacity_bound(instance).value),
        Proof("apportionment", "recomputed", lambda instance, _: apportionment_bound(instance).value),
        Proof("slot counting", "recomputed", _slot_counting),
        Proof("forced counts", "recomputed", _forced_counts),
        Proof("replayed search", "recomputed", replayed_value),
        Proof("pairing dual", "recomputed", pairing_value),
        Proof("pairing tree", "recomputed", tree_value),
        Proof("pattern dual", "recomputed", pattern_value),
        Proof("hierarchical", "recomputed"),
        *(Proof(kind, "recomputed") for kind in ("windows", "groups", "sum", "shares")),
        Proof("exhausted search", "search"),
        Proof("claim", "solver"),
    )
}
"""Proofs by kind; a bound over nodes rests on the weakest of its nodes' proofs besides."""
CLAIM_OF = "claim of "


def proof_of(kind: Any) -> Proof:
    """Return a proof by its kind.

    Raises
    ------
    InputError
        If there is none.
    """
    if not isinstance(kind, str) or kind not in PROOFS:
        raise InputError(f"there is no proof of kind {kind!r}; the kinds are {', '.join(PROOFS)}")
    return PROOFS[kind]


def trust(bound: Bound) -> Trust:
    """Return what a bound rests on: its own proof or the weakest of its nodes' proofs."""
    kinds = [bound.kind]
    if bound.kind == "hierarchical":
        kinds += [node["kind"] for node in bound.witness["nodes"]]
    return max((PROOFS[kind].trust for kind in kinds), key=TRUSTS.index)


def described(bound: Bound) -> str:
    """Return the kind of proof with what it rests on: an exhausted search, the word of a solver ("claim of ...")."""
    if bound.kind == "claim":
        return f"{CLAIM_OF}{bound.witness['solver']}"
    nodes = bound.witness["nodes"] if bound.kind == "hierarchical" else []
    kinds = {node["kind"] for node in nodes}
    solvers = {str(node["witness"]["solver"]) for node in nodes if PROOFS[node["kind"]].trust == "solver"}
    parts = [bound.kind]
    parts += [proof.kind for proof in PROOFS.values() if proof.trust == "search" and proof.kind in kinds]
    parts += [f"{CLAIM_OF}{' and '.join(sorted(solvers))}"] if solvers else []
    return ", ".join(parts)


def described_trust(text: str) -> Trust:
    """Return what a bound rests on from what :func:`described` says of it.

    Examples
    --------
    >>> described_trust("hierarchical, exhausted search")
    'search'
    """
    head, claimed, _ = text.partition(CLAIM_OF)
    named = [PROOFS[kind].trust for kind in head.split(", ") if kind]
    return max([*named, "solver"] if claimed else named, key=TRUSTS.index)
