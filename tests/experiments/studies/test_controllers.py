"""The study of controllers: what it calls a gain, moves and a distance to the best in hindsight, on rows made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.studies import controllers
from eplb_gap.experiments.studies.controllers import CONTROLLERS, FIXED, RARE, SMALL, SUITE
from eplb_gap.heuristics.control.catalogue import KINDS
from eplb_gap.heuristics.control.controllers_file import parse_controller


def row(method: str, served: list[float], moves: list[int]) -> Row:
    fields: dict[str, Any] = {"suite": SUITE, "instance": "steps global", "method": method, "seed": 0}
    mean = [40.0] * len(served)
    judged = slice(40, None)
    return Row(
        fields
        | {
            "parameters": {"first": 400},
            "balancedness": sum(mean[judged]) / sum(served[judged]),
            "moves": moves,
            "layers": 2,
            "stretch_mean": mean,
            "stretch_served": served,
        }
    )


MEASURED = Rows(
    [
        row(SMALL, [1000.0] * 40 + [50.0] * 40, [99] * 40 + [1] * 40),
        row(RARE, [1.0] * 40 + [80.0] * 40, [0] * 40 + [4] * 40),
    ]
)


def test_gains_moves_and_distances_count_judged_steps_alone() -> None:
    found = controllers.gain(MEASURED, "steps", "global", SMALL, RARE)
    assert found == pytest.approx((30, 30, 30))
    assert controllers.moves_per_step(MEASURED[0]) == pytest.approx(40 / 400 / 2)
    assert controllers.part_of_moves(MEASURED, "steps", "global", SMALL, RARE) == pytest.approx(0.25)
    assert controllers.behind(MEASURED, "steps", "global", 0, RARE, (SMALL,)) == pytest.approx(30)
    assert controllers.behind(MEASURED, "steps", "global", 0, SMALL, (RARE,)) == pytest.approx(-30)


def test_an_adaptive_controller_is_held_against_fixed_ones_of_its_interval_and_its_moves() -> None:
    for method, fixed in FIXED.items():
        ours = parse_controller(CONTROLLERS[method])
        for one in fixed:
            other = parse_controller(CONTROLLERS[one])
            assert other.interval == ours.interval
            assert ours.moves is None or (other.moves is not None and other.moves <= controllers.MOVES)
    assert {parse_controller(text).kind for text in CONTROLLERS.values()} == set(KINDS)
