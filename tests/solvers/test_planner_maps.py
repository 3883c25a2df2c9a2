"""No solve is worse than a registered heuristic, whatever the time limit and the engine."""

from __future__ import annotations

import numpy as np
import pytest

from eplb_gap.experiments.loads.synthetic import family_loads
from eplb_gap.heuristics.methods import Heuristic
from eplb_gap.heuristics.registry import HEURISTICS, rebalance
from eplb_gap.problem import Deployment, InputError, Placement, PlacementError, verify
from eplb_gap.problem.deployment import PRESETS
from eplb_gap.solvers import ENGINES, solve
from eplb_gap.solvers.planner_maps import planner_maps, planners

SHAPES = {
    **PRESETS,
    "one slot": Deployment(20, 24, 24),
    "pairs": Deployment(64, 96, 48),
    "triples": Deployment(64, 96, 32),
    "triples of 128": Deployment(128, 192, 64),
    "quadruples": Deployment(48, 64, 16),
    "nine": Deployment(64, 72, 8),
    "nodes": Deployment(64, 96, 32, 4, 8),
    "small nodes": Deployment(16, 24, 8, 2, 4),
    "unequal": Deployment(12, slots_per_gpu=[5, 3, 4, 6]),
    "dead": Deployment(24, 40, 10, active=[True] * 8 + [False, True]),
    "distinct": Deployment(32, 48, 16, duplicates="forbidden"),
    "no spare slot": Deployment(64, 64, 16),
}
FAMILIES = ("ln.3", "ln1.0", "ln2.3", "zipf.8", "zipf1.2", "zipf1.6", "one-hot", "tied", "zeros")
LAYERS, LARGE = 3, 100
"""Layers of a shape with at most LARGE slots; larger ones get one, since all heuristics plan on it."""


def layer(family: str, experts: int, seed: int) -> np.ndarray:
    """Return one layer of a family, int64 [experts]."""
    if family == "one-hot":
        return np.eye(experts, dtype=np.int64)[seed % experts] * 1000
    if family in ("tied", "zeros"):
        return np.full(experts, 7 if family == "tied" else 0)
    return family_loads(family, experts, 10**6, seed)


def uppers(loads: np.ndarray, deployment: Deployment, name: str) -> list | None:
    """Return the makespans of a heuristic; None where it refuses or its map is not legal."""
    try:
        return verify(rebalance(loads, deployment, name), loads, deployment)
    except (InputError, PlacementError):
        return None


def assert_none_better(loads: np.ndarray, deployment: Deployment, **options) -> int:
    solution = solve(loads, deployment, **options)
    assert verify(solution.placement, loads, deployment) == solution.upper
    judged = 0
    for name in HEURISTICS:
        of_heuristic = uppers(loads, deployment, name)
        if of_heuristic is not None:
            judged += 1
            assert all(own <= other for own, other in zip(solution.upper, of_heuristic, strict=True)), name
    return judged


@pytest.mark.parametrize(("number", "name"), list(enumerate(SHAPES)))
def test_no_heuristic_is_better(number, name):
    deployment = SHAPES[name]
    layers = LAYERS if deployment.num_slots <= LARGE else 1
    families = [FAMILIES[(LAYERS * number + i) % len(FAMILIES)] for i in range(layers)]
    loads = np.array([layer(family, deployment.num_experts, number) for family in families])
    assert assert_none_better(loads, deployment, time_limit=0.1 if number % 3 else 0.3) >= (1 if name == "unequal" else 10)


@pytest.mark.parametrize("method", [name for name, engine in ENGINES.items() if 3 in engine.slots_per_gpu])
def test_no_engine_is_worse_than_a_heuristic(method):
    loads = layer("zipf1.4", 8, 5)[None]
    assert assert_none_better(loads, Deployment(8, 12, 4), method=method, time_limit=0.1) >= 10


def test_a_planner_that_is_better_is_used_and_a_bad_map_is_not(monkeypatch):
    loads, deployment = layer("ln2.3", 64, 1)[None], Deployment(64, 96, 32, duplicates="forbidden")
    best = solve(loads, deployment, time_limit=1.0).placement
    crowded = np.sort(best.phy2log, axis=1)
    before = dict(HEURISTICS)
    for name in before:
        monkeypatch.delitem(HEURISTICS, name)
    weak = solve(loads, deployment, "bounds", time_limit=0.1)
    monkeypatch.setitem(HEURISTICS, "crowded", Heuristic("crowded", lambda weight, shape: Placement(crowded, 64)))
    assert solve(loads, deployment, "bounds", time_limit=0.1).upper == weak.upper
    monkeypatch.setitem(HEURISTICS, "planted", Heuristic("planted", lambda weight, shape: best))
    assert solve(loads, deployment, "bounds", time_limit=0.1).upper == verify(best, loads, deployment) < weak.upper
    monkeypatch.undo()
    HEURISTICS.clear()  # what is undone comes back in another order
    HEURISTICS.update(before)


def test_refusals_and_illegal_maps_are_no_maps():
    deployment = Deployment(4, 8, 4, duplicates="forbidden")
    loads = np.array([[4, 3, 2, 1]])

    def refusing(weight, shape):
        raise InputError("these loads not")

    assert planner_maps(Heuristic("no", refusing), loads, deployment) == [None]
    twice = Placement(np.array([[0, 0, 1, 1, 2, 2, 3, 3]]), 4)
    assert planner_maps(Heuristic("twice", lambda weight, shape: twice), loads, deployment) == [None]
    compiled, others = ([each.name for each in planners(deployment, asked)] for asked in (True, False))
    assert "fast" in compiled
    assert "initial_program" in others
    assert not set(compiled) & set(others)
