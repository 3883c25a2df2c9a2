"""The sweep against brute force: extreme instances on a sample, and that a wrong answer or a wrong proof is reported."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from eplb_gap.experiments.loads.random_instances import SHAPES_OF_KINDS, cases_of_kind
from eplb_gap.experiments.studies import agreement
from eplb_gap.problem import Deployment
from eplb_gap.problem.bounds.bounds import Bound, count_limits
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers import ENGINES, solve

ORACLE, PAIRING, COVER, AUTO = (ENGINES[name] for name in ("oracle", "pairing", "exact-cover", "auto"))
DEPLOYMENT = Deployment(4, 6, 3)
CASE = np.array([[9, 5, 4, 2]]), DEPLOYMENT


@pytest.mark.parametrize("kind", SHAPES_OF_KINDS)
def test_every_engine_agrees_with_brute_force_on_a_sample_of_extreme_instances(kind):
    cases = cases_of_kind(kind, len(SHAPES_OF_KINDS[kind]), seed=7)
    found = agreement.compared(cases, [*agreement.SWEPT, ORACLE])
    assert found["disagreements"] == []
    assert set(found["left_open"]) <= set(agreement.RELATIVE_TOLERANCE)
    assert found["compared"]["oracle"] == found["compared"]["auto"] == found["instances"] == len(cases)
    assert sum(found["proofs"].values()) == sum(found["compared"].values())


def test_the_kinds_are_what_they_are_called():
    def drawn(kind):
        return cases_of_kind(kind, 24, seed=3)

    assert all(loads.max() >= 100 and np.sort(loads[0])[-2] < 40 for loads, _ in drawn("hot"))
    assert all(len(set(loads[0].tolist())) <= 4 for loads, _ in drawn("tied"))
    zeros = [int((loads == 0).sum()) / loads.size for loads, _ in drawn("zero")]
    assert min(zeros) >= 0.5 and zeros.count(1.0) == 8
    assert all(deployment.num_slots == deployment.num_experts for _, deployment in drawn("S = E"))
    assert not any(deployment.is_regular for _, deployment in drawn("unequal slots"))
    assert sum(bool(deployment.dead_gpus) for _, deployment in drawn("dead GPUs")) == 20
    forced = 0
    for loads, deployment in drawn("forced counts"):
        instance = Instance.of_layer(loads[0], deployment)
        limits = count_limits(instance, agreement.optimum(loads[0], deployment))
        forced += limits is not None and limits.forced
    assert forced >= 12


def test_the_sweep_has_more_than_750_instances():
    assert len(agreement.SEEDS) * sum(agreement.INSTANCES.values()) > 750
    assert set(SHAPES_OF_KINDS) < set(agreement.INSTANCES)


def test_an_engine_is_asked_for_shapes_that_it_is_for():
    assert agreement.takes(PAIRING, DEPLOYMENT)
    assert not agreement.takes(PAIRING, Deployment(4, 6, 2))
    assert not agreement.takes(COVER, Deployment(4, slots_per_gpu=(1, 2, 3)))
    assert agreement.takes(AUTO, Deployment(4, slots_per_gpu=(1, 2, 3)))
    assert agreement.takes(PAIRING, Deployment(4, 8, 4, active=(True, False, True, True)))


def test_a_wrong_optimum_is_reported(monkeypatch):
    true = agreement.optimum(CASE[0][0], DEPLOYMENT)
    for wrong in (true - 1, true + 1):
        monkeypatch.setattr(agreement, "optimum", lambda *case, wrong=wrong: wrong)
        (found,) = agreement.compared([CASE], [AUTO])["disagreements"]
        assert found["engine"] == "auto" and "expected" in found["found"]


def test_a_bound_below_the_optimum_is_reported_of_exact_engines_alone():
    loads, deployment = np.array([[9, 5, 4, 3]]), Deployment(4, 4, 2)
    solution = solve(loads, deployment, "bounds", time_limit=0.1)
    loose = replace(solution, bounds=[Bound(Fraction(1), "mean")])
    assert agreement.contradictions(loose, solution.upper[0], None) == []
    assert "is not proven" in agreement.contradictions(loose, solution.upper[0], Fraction(1, 10**6))[0]


def test_a_proof_that_does_not_hold_is_reported():
    solution = solve(*CASE, "auto")
    forged = replace(solution, bounds=[Bound(solution.upper[0], "pairing dual", {"threshold": "1/1", "multipliers": []})])
    (found,) = agreement.contradictions(forged, solution.upper[0], Fraction(0))
    assert "certificate is refused" in found and "pairing dual" in found


def test_an_engine_that_raises_is_reported(monkeypatch):
    def broken(*arguments, **keywords):
        raise ArithmeticError("on purpose")

    monkeypatch.setattr(agreement.solvers, "solve", broken)
    (found,) = agreement.compared([CASE], [AUTO])["disagreements"]
    assert found["found"] == "it raised ArithmeticError('on purpose')"
