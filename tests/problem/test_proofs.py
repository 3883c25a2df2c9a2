"""Every kind of bound says in one place what it rests on."""

from __future__ import annotations

import ast
from fractions import Fraction
from pathlib import Path

import pytest

from eplb_gap.problem import InputError, Instance
from eplb_gap.problem.bounds.bounds import Bound
from eplb_gap.problem.proofs import PROOFS, TRUSTS, described, described_trust, proof_of, trust

ROOT = Path(__file__).resolve().parents[2]
MAKERS = [path for room in ("problem", "solvers") for path in sorted((ROOT / room).rglob("*.py"))]


def kinds(source: str) -> set[str]:
    """Return the kinds that a module writes into the bounds it makes."""
    calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "Bound"]
    named = [call.args[1] for call in calls if len(call.args) > 1]
    return {node.value for node in named if isinstance(node, ast.Constant)}


def test_every_kind_that_is_made_anywhere_has_a_proof_and_no_proof_is_for_nothing():
    made = set().union(*(kinds(path.read_text()) for path in MAKERS))
    assert len(made) > 8
    assert made == set(PROOFS)


def node(kind):
    return {"groups": [0], "value": "1/1", "kind": kind, "witness": {"solver": "HiGHS"} if kind == "claim" else {}}


@pytest.mark.parametrize("kind", PROOFS)
def test_what_is_said_of_a_bound_tells_what_it_rests_on(kind):
    witness = {"nodes": []} if kind == "hierarchical" else {"solver": "CP-SAT"}
    bound = Bound(Fraction(1), kind, witness)
    assert trust(bound) == PROOFS[kind].trust == described_trust(described(bound))
    if kind != "hierarchical":
        nodes = Bound(Fraction(1), "hierarchical", {"nodes": [node("mean"), node(kind)]})
        assert trust(nodes) == PROOFS[kind].trust == described_trust(described(nodes))


def test_a_bound_over_nodes_rests_on_its_weakest():
    worst = [node("exhausted search"), node("claim"), node("mean")]
    bound = Bound(Fraction(1), "hierarchical", {"nodes": worst})
    assert (trust(bound), described(bound)) == ("solver", "hierarchical, exhausted search, claim of HiGHS")
    assert trust(Bound(Fraction(1), "hierarchical", {"nodes": worst[:1]})) == "search"
    assert TRUSTS == ("recomputed", "search", "solver")


def test_what_is_recomputed_on_flat_instances_is_recomputed():
    instance = Instance((600, 560, 120, 120, 20, 10, 10, 10), 16, 8)
    for kind in ("mean", "capacity", "apportionment"):
        value = PROOFS[kind].value
        assert value is not None
        assert value(instance, {}) > 0


@pytest.mark.parametrize("kind", ["oracle", "", None, 3, ["mean"]])
def test_an_unknown_kind_is_refused(kind):
    with pytest.raises(InputError, match="no proof of kind"):
        proof_of(kind)
