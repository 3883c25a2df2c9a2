"""What is planned on one window is scored on it and on the next."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from eplb_gap import heuristics
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.measuring.solve_cells import bounded_row, planned_row
from eplb_gap.experiments.published import row_proofs
from eplb_gap.experiments.studies import decomposition, gaps, head_to_head, prices, schema, shapes, two_slots
from eplb_gap.problem import Deployment, metrics

LOADS = np.array([[[8, 4, 2, 2]], [[1, 1, 6, 8]], [[5, 5, 5, 1]]])
SMALL = Deployment(4, 6, 2)


def test_windows_are_planned_on_and_the_next_are_served():
    row = planned_row(LOADS, SMALL, "fast")
    placements = [heuristics.rebalance(window, SMALL, "fast") for window in LOADS[:-1]]
    for side, shift in (("planning", 0), ("serving", 1)):
        expected = [metrics.balancedness_gpu(p, LOADS[at + shift], 2) for at, p in enumerate(placements)]
        assert row[side] == pytest.approx(expected)
    assert row["status"] == "legal"
    assert len(row["upper"]) == len(row["duplicates"]) == 2


def test_bounds_hold_and_limit_is_theirs():
    row = bounded_row(LOADS, SMALL, 0.0, 5.0)
    assert row["status"] == "certified"
    assert row["upper"] == row["lower"]
    means = [Fraction(int(window.sum()), 2) for window in LOADS[:-1]]
    assert row["limit"] == pytest.approx([float(mean / Fraction(low)) for mean, (low,) in zip(means, row["lower"], strict=True)])
    assert row["limit"] == pytest.approx(row["planning"])
    assert all(limit <= 1 for limit in row["limit"])


def test_no_heuristic_is_below_the_bound():
    bounds = bounded_row(LOADS, SMALL, 0.0, 5.0)["lower"]
    for up, low in zip(planned_row(LOADS, SMALL, "initial_program")["upper"], bounds, strict=True):
        assert all(Fraction(a) >= Fraction(b) for a, b in zip(up, low, strict=True))


def test_what_is_not_proven_is_not_called_certified():
    loads = np.random.default_rng(0).integers(1, 10**6, size=(2, 1, 64))
    assert bounded_row(loads, Deployment(64, 64, 16), 0.0, 0.01)["status"] == "bounded"
    assert bounded_row(loads, Deployment(64, 96, 4), 1e-2, 5.0)["status"] == "certified"


def test_windows_without_loads_are_balanced():
    row = bounded_row(np.zeros((2, 1, 4), dtype=np.int64), SMALL, 0.0, 5.0)
    assert row["limit"] == row["planning"] == row["serving"] == [1.0]


def cells_that_solve():
    """Return, by name, one quick call of every kind of cell that solves."""
    return {
        "findings": [
            lambda: prices.policy_cell("recorded", 0, "hierarchical"),
            lambda: two_slots.paired_cell("zipf.8"),
        ],
        "heuristics": [lambda: head_to_head.bound_cell("recorded", "hierarchical")],
        "shapes": [lambda: shapes.shape_cell(2, "zipf1.2")],
        "decomposition": [lambda: decomposition.decomposition_cell("recorded", "hierarchical", 3, "fast")],
        "gap": [lambda: gaps.gap_solver_cell("flashlb", "auto")],
    }


@pytest.mark.parametrize("suite", cells_that_solve())
def test_every_cell_that_solves_keeps_what_its_bounds_rest_on(suite, monkeypatch):
    for module, limit in ((two_slots, 0.05), (head_to_head, 0.5), (shapes, 0.5), (prices, 0.5)):
        for name in ("SECONDS", "EXACT_SECONDS", "BOUND_SECONDS"):
            monkeypatch.setattr(module, name, limit, raising=False)
    monkeypatch.setattr(head_to_head, "PAIRS", 1)
    key = {"suite": suite, "instance": "", "method": "", "seed": 0, "timestamp": rows.now(), **rows.environment()}
    for cell in cells_that_solve()[suite]:
        row = Row({**key, **cell(), "cell_wall_seconds": 0.1, "cell_cpu_seconds": 0.1})
        assert schema.problems(row) == []
        assert sum(row["trust"].values()) > 0
        assert row_proofs.problems(Rows([Row({**row, "method": "tried"})])) == []


@pytest.mark.parametrize("suite", ["redundancy", "held_out"])
def test_rows_fit_their_schema(suite):
    key = {"suite": suite, "instance": "", "method": "", "seed": 0, "timestamp": rows.now(), **rows.environment()}
    for row in (bounded_row(LOADS, SMALL, 0.0, 5.0), planned_row(LOADS, SMALL, "fast")):
        assert schema.problems({**key, **row, "cell_wall_seconds": 0.1, "cell_cpu_seconds": 0.1}) == []
