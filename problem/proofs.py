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
    reachable,
    slot_counting_value,
)
from eplb_gap.problem.bounds.exhausted import replayed_value
from eplb_gap.problem.bounds.pairing_dual import next_pair_sum, pairing_value
from eplb_gap.problem.bounds.pairing_tree import tree_value
from eplb_gap.problem.bounds.pattern_dual import pattern_value
from eplb_gap.problem.bounds.sample_average import AVERAGES
from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.files import fields, label
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
        :mod:`eplb_gap.problem.certificate` takes apart into its nodes; and for bounds on a history's average, which
        :func:`eplb_gap.problem.bounds.sample_average.proven_average` recomputes and no certificate holds.
    required, optional : tuple of str
        Fields of the witness. All of them are read and checked; others are refused.
    """

    kind: str
    trust: Trust
    value: Callable[[Instance, Mapping[str, Any]], Fraction] | None = None
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def _apportionment(instance: Instance, witness: Mapping[str, Any]) -> Fraction:
    value = apportionment_bound(instance).value
    if "counts" in witness:
        counts = witness["counts"]
        if not isinstance(counts, list) or len(counts) != instance.num_experts or any(type(c) is not int for c in counts):
            raise InputError(f"counts is {shown(counts)}; {instance.num_experts} integers are needed, one for every expert")
        if min(counts) < 1 or max(counts) > instance.max_count or sum(counts) != instance.num_slots:
            raise InputError(
                f"counts are {min(counts)} to {max(counts)} with sum {sum(counts)}; "
                f"1 to {instance.max_count} with sum {instance.num_slots} are needed"
            )
        largest = max(Fraction(w, c) for w, c in zip(instance.loads, counts, strict=True))
        if largest != value:
            raise InputError(f"counts: their largest replica is {largest}; the smallest possible one is {value}")
    return value


def _slot_counting(instance: Instance, witness: Mapping[str, Any]) -> Fraction:
    return slot_counting_value(instance, parse(witness["refuted"], "refuted"), parse(witness["above"], "above"))


def _forced_counts(instance: Instance, witness: Mapping[str, Any]) -> Fraction:
    return forced_counts_value(instance, parse(witness["threshold"], "threshold") if "threshold" in witness else None)


PROOFS: dict[str, Proof] = {
    proof.kind: proof
    for proof in (
        Proof("mean", "recomputed", lambda instance, _: mean_bound(instance).value),
        Proof("capacity", "recomputed", lambda instance, _: capacity_bound(instance).value),
        Proof("apportionment", "recomputed", _apportionment, (), ("counts",)),
        Proof("slot counting", "recomputed", _slot_counting, ("refuted", "above")),
        Proof("forced counts", "recomputed", _forced_counts, (), ("threshold",)),
        Proof("replayed search", "recomputed", replayed_value, ("threshold", "nodes", "log")),
        Proof("pairing dual", "recomputed", pairing_value, ("threshold", "multipliers")),
        Proof("pairing tree", "recomputed", tree_value, ("threshold", "nodes", "tree")),
        Proof("pattern dual", "recomputed", pattern_value, ("threshold", "proof"), ("next",)),
        Proof("hierarchical", "recomputed", None, ("nodes",)),
        *(Proof(kind, "recomputed") for kind in AVERAGES),
        Proof("exhausted search", "search", None, (), ("threshold", "nodes", "count_vectors", "search_nodes")),
        Proof("claim", "solver", None, ("solver",), ("version", "parameters", "threshold")),
    )
}
"""Proofs by kind; a bound over nodes rests on the weakest of its nodes' proofs besides."""
CLAIM_OF = "claim of "
SEARCH_OF = "exhausted search of this project"
"""Who claims what a search left no log of."""
MAX_SEARCHED = 1 << 63
"""Nodes of a search that left no log, and parameters of a solver, are below it."""


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


def witness_of(kind: Any, witness: Any) -> tuple[Proof, dict[str, Any]]:
    """Return the proof of a kind that a file names, and its witness, which has exactly the fields that the proof reads.

    Raises
    ------
    InputError
        If there is no such kind, or the witness is no object, lacks a field or has one that nobody reads.
    """
    proof = proof_of(kind)
    return proof, fields(witness, f"the witness of the {proof.kind} bound", proof.required, proof.optional)


def claimant(bound: Bound, instance: Instance) -> str:
    """Return whose word a bound on a flat instance rests on, once all that can be checked of its witness is.

    A claim cannot be recomputed. But it says what was searched for in vain: a threshold that is no threshold, or that a smaller
    value than the bound's would have passed, is refused.

    Raises
    ------
    InputError
        Naming the field that is not what it must be.
    """
    proof, witness = witness_of(bound.kind, bound.witness)
    for name in ("nodes", "count_vectors", "search_nodes"):
        if name in witness and (type(witness[name]) is not int or not 0 <= witness[name] < MAX_SEARCHED):
            raise InputError(f"{name} is {shown(witness[name])}; an integer from 0 to {MAX_SEARCHED - 1} is needed")
    if proof.trust == "search" and set(witness) not in ({"threshold", "nodes"}, {"count_vectors", "search_nodes"}):
        raise InputError("an exhausted search has threshold and nodes, or count_vectors and search_nodes")
    if "threshold" in witness:
        threshold = parse(witness["threshold"], "threshold")
        follows = reachable(instance, threshold, above=True)
        if proof.trust == "solver" and instance.is_even and instance.slots_per_gpu == 2:
            follows = max(follows, reachable(instance, next_pair_sum(instance, threshold)))
        if bound.value > follows:
            raise InputError(f"lower is {bound.value}; that no placement lies within {threshold} implies {follows}")
    if proof.trust == "search":
        return SEARCH_OF
    _check_parameters(witness.get("parameters", {}))
    solver = label(witness["solver"], "solver")
    return f"{CLAIM_OF}{solver} {label(witness['version'], 'version')}" if "version" in witness else f"{CLAIM_OF}{solver}"


def _check_parameters(parameters: Any) -> None:
    """Refuse settings of a solver that are no plain values under plain names."""
    if not isinstance(parameters, dict):
        raise InputError(f"parameters is {shown(parameters)}; an object is needed")
    for name, value in parameters.items():
        label(name, "a parameter's name")
        if isinstance(value, str):
            label(value, f"parameter {name}")
        elif not isinstance(value, bool | int | float) or abs(value) > MAX_SEARCHED:
            raise InputError(f"parameter {name} is {shown(value)}; a text, a number or a flag is needed")


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
