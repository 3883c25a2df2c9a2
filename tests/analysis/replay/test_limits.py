"""The certified limit and the chains of controllers against the best sequences of maps, by enumeration."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from eplb_gap import Controller, Deployment, InputError, LoadTrace, replay
from eplb_gap.analysis.replay import limits
from eplb_gap.analysis.replay.chain import PARTS, chain_as_dict, chain_lines, chain_of
from eplb_gap.analysis.replay.costs import Costs
from eplb_gap.analysis.replay.limits import certified_limit
from eplb_gap.analysis.replay.replay import LIMIT
from eplb_gap.analysis.replay.report import report
from eplb_gap.experiments.fuzzing import controller_sweep
from eplb_gap.experiments.fuzzing.map_sequences import least_served
from eplb_gap.problem.fractions import parse

pytestmark = pytest.mark.usefixtures("short_plans")

SHAPE = Deployment(4, 6, 2)
LOADS = LoadTrace(np.random.default_rng(3).integers(1, 60, (8, 2, 4)))
BUDGETED = Controller("budgeted", interval=2, moves=0.2)


def test_bounds_and_controllers_are_on_their_sides_of_the_best_sequence() -> None:
    assert controller_sweep.sweep(12, seed=1) == []


def test_a_bound_that_is_too_large_is_a_disagreement(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = limits.interval_bounds
    monkeypatch.setattr(limits, "interval_bounds", lambda *given: tuple(value + 1 for value in honest(*given)))
    found = controller_sweep.sweep(1, seed=1)
    assert any("bound of intervals" in text for text in found)
    assert any("bound of steps" in text for text in found)


def test_the_best_sequence_is_worked_out_by_hand() -> None:
    # Two GPUs of one slot pair: hot experts change; without a move both stay where they are.
    shape = Deployment(4, 4, 2)
    steps = np.array([[9, 9, 1, 1], [9, 1, 9, 1]])
    assert least_served(steps, shape, [0, 1], None) == 20
    assert least_served(steps, shape, [0], None) == 20  # 0 3 | 1 2 serves both: 10 and 10
    steps = np.array([[9, 9, 1, 1], [9, 1, 9, 1], [9, 1, 1, 9]])
    assert least_served(steps, shape, [0, 1, 2], None) == 30
    assert least_served(steps, shape, [0, 1, 2], 0) == 38
    assert least_served(steps, shape, [0, 1, 2], 2) == 30


def test_the_parts_of_a_chain_add_up_exactly() -> None:
    costs = Costs(2e6, 1e9, stall=0.25, tokens_per_second=300.5)
    controllers = [BUDGETED, Controller("periodic", interval=2), Controller("none"), Controller("periodic", interval=3)]
    result = replay(LOADS, SHAPE, controllers, costs=costs, limit=2)
    limited, free, none, elsewhere = (chain_of(result, run) for run in result.runs)
    assert elsewhere is None
    assert limited is not None
    assert free is not None
    assert none is not None
    for chain, run in zip((limited, free, none), result.runs, strict=False):
        assert chain.mean + sum(chain.parts.values()) == chain.total
        assert chain.total == run.served + Fraction(run.waiting or 0.0) * Fraction(300.5)
        assert min(chain.parts.values()) >= 0
        assert chain.mean <= chain.step_lower <= chain.step
        assert chain.step_lower <= chain.interval_lower <= chain.interval
        assert float(chain.regret / chain.mean) == (result.regret(run) or (0.0, 0.0))[1]
        said = chain_as_dict(chain)
        assert said is not None
        assert chain.mean + sum(parse(part, "part") for part in said["parts"].values()) == chain.total
    assert list(limited.parts) == list(PARTS)
    assert "budget" not in free.parts
    assert limited.parts["moving"] > 0 == none.parts["moving"]
    lines = chain_lines(result)
    assert len(lines) == 4
    assert "the moves" in lines[0]
    assert "the moves" not in lines[1]


def test_a_certified_interval_whose_ends_print_alike_is_one_number() -> None:
    # Two GPUs of two slots, the same loads in all steps: 18 and 2 of the first map, 10 and 10 of the best.
    told = report(replay(LoadTrace([[[9, 9, 1, 1]]] * 4), Deployment(4, 4, 2), [Controller("none")], limit=2))
    assert "| 80.00 |" in told
    assert "excess over the mean: 0.00 points with" in told


def test_waiting_is_no_share_of_the_chain_unless_the_profile_says_how_fast_a_gpu_serves() -> None:
    for costs in (None, Costs(2e6, 1e9)):
        result = replay(LOADS, SHAPE, [BUDGETED], costs=costs, limit=2)
        chain = chain_of(result, result.runs[0])
        assert chain is not None
        assert chain.waited is None
        assert "moving" not in chain.parts


def test_a_clairvoyant_that_was_asked_for_is_the_chains_own() -> None:
    clairvoyant = Controller("clairvoyant", interval=2, moves=0.2)
    result = replay(LOADS, SHAPE, [BUDGETED, clairvoyant], limit=2)
    chains = [chain_of(result, run) for run in result.runs]
    assert result.budgets == {clairvoyant: result.runs[1].served}
    assert [chain and chain.budget for chain in chains] == [min(run.served, result.runs[1].served) for run in result.runs]
    assert replay(LOADS, SHAPE, [BUDGETED], limit=2).budgets == result.budgets


@pytest.mark.parametrize(("stage", "limit", "chained"), [(0, False, [False, False]), (1, True, [True, False])])
def test_an_interrupt_of_the_limit_keeps_the_controllers(stage: int, limit: bool, chained: list[bool]) -> None:
    seen = []

    def stop(label: str, done: int, total: int) -> None:
        if label == LIMIT:
            assert total == 2 * 8
            seen.append(done)
            if done > 8 * stage:
                raise KeyboardInterrupt

    result = replay(LOADS, SHAPE, [Controller("periodic", interval=2), BUDGETED], limit=2, tick=stop)
    assert result.interrupted
    assert [run.controller.kind for run in result.runs] == ["periodic", "budgeted"]
    assert (result.limit is not None) == limit
    assert [chain_of(result, run) is not None for run in result.runs] == chained
    assert seen == sorted(seen)


def test_controllers_that_change_elsewhere_get_no_regret() -> None:
    loads = LoadTrace(np.random.default_rng(0).integers(1, 50, (12, 1, 4)))
    controllers = [Controller("none"), Controller("periodic", interval=4), Controller("periodic", interval=3)]
    result = replay(loads, Deployment(4, 4, 2), controllers, limit=2)
    assert [result.regret(run) is None for run in result.runs] == [False, False, True]
    lagged = replay(loads, Deployment(4, 4, 2), [Controller("periodic", interval=4, lag=1)], limit=2)
    assert lagged.limit is not None
    assert lagged.limit.offset == 1
    assert lagged.regret(lagged.runs[0]) is not None


@pytest.mark.parametrize(("interval", "first", "message"), [(0, 0, "interval"), (1, 4, "first is 4"), (1, -1, "first is -1")])
def test_a_limit_out_of_range_is_named(interval: int, first: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        certified_limit(np.ones((4, 1, 4), dtype=np.int64), Deployment(4, 4, 2), interval, first)


def test_no_load_is_no_loss() -> None:
    limit = certified_limit(np.zeros((4, 1, 4), dtype=np.int64), Deployment(4, 4, 2), 2, 0)
    assert limit.balancedness == (1.0, 1.0)
    assert limit.regret(Fraction(0)) == (0.0, 0.0)
    result = replay(LoadTrace(np.zeros((6, 1, 4), dtype=np.int64)), SHAPE, [replace(BUDGETED, interval=1)], limit=1)
    assert chain_lines(result) == []
