"""The adaptive controller: near the best fixed one, its regret recomputed, blind to the future, its moves within the cap."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap import Controller, Deployment, LoadTrace, Placement, replay
from eplb_gap.heuristics.control import adaptive
from eplb_gap.heuristics.control.adaptive import FREE, LIMITED, Adaptive, Adviser
from eplb_gap.heuristics.moves.migration import replan
from eplb_gap.heuristics.moves.relabel import moved
from eplb_gap.heuristics.moves.window_moves import replan_on_windows
from eplb_gap.heuristics.registry import rebalance
from eplb_gap.heuristics.serving import sample_average
from eplb_gap.problem.metrics import per_gpu

pytestmark = pytest.mark.usefixtures("short_plans")

SHAPE = Deployment(32, 40, 8)  # on tiny layers the default planner searches for milliseconds
CONTIGUOUS = [*range(32), *range(8)]
INTERVAL = 2


def drifting(seed: int, steps: int, experts: int = 32) -> np.ndarray:
    generator = np.random.default_rng(seed)
    heat = np.cumsum(generator.normal(0, 0.5, (steps, 3, experts)), axis=0)
    return generator.poisson(200 * np.exp(heat - heat.mean(axis=2, keepdims=True)))


def map_of(adviser: Adviser, past: np.ndarray, in_use: Placement, most: int | None) -> Placement:
    """Return an adviser's map, from the planners alone."""
    if not adviser.intervals:
        return in_use
    window = past[-adviser.intervals * INTERVAL :]
    history = np.stack([part.sum(axis=0) for part in np.array_split(window, min(8, len(window)))])
    if most is None:
        return sample_average.plan(history, SHAPE, trials=0) if adviser.by_step else rebalance(window.sum(axis=0), SHAPE)
    if adviser.by_step:
        return replan_on_windows(history, SHAPE, in_use, most)
    return replan(window.sum(axis=0), SHAPE, in_use, total_moves=most)


def excess(placement: Placement, steps: np.ndarray) -> float:
    sizes = steps / placement.counts()
    loads = per_gpu(
        np.take_along_axis(sizes, np.broadcast_to(placement.phy2log, (len(steps), *placement.phy2log.shape)), 2),
        SHAPE.slots_by_gpu,
    )
    return float(loads.max(axis=2).sum() / (steps.sum() / 8) - 1)


@given(st.integers(0, 10**6), st.sampled_from([None, 0.1]))
@settings(max_examples=3, deadline=None)
def test_the_stated_regret_is_what_a_recomputation_gives(seed: int, share: float | None) -> None:
    loads = drifting(seed, INTERVAL * 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptive, "CHANGE", np.inf)  # windows as long as their advisers'
        run = replay(LoadTrace(loads), SHAPE, [Controller("adaptive", interval=INTERVAL, moves=share)], warm_up=0).runs[0]
    advisers = FREE if share is None else LIMITED
    sums, judged = np.zeros(len(advisers)), 0
    for old, new in pairwise([None, *run.changes]):
        if new.decided + INTERVAL >= len(loads):  # no decision comes after it that judges it
            continue
        limited = share is not None and old is not None
        past, steps = loads[: new.decided], loads[new.decided : new.decided + INTERVAL]
        judged += 1
        for number, adviser in enumerate(advisers):
            if adviser.intervals * INTERVAL <= 2 * len(past) and (limited or adviser.intervals):
                most = int(share * 120) if limited else None
                found = map_of(adviser, past, new.placement if old is None else old.placement, most)
                sums[number] += excess(new.placement, steps) - excess(found, steps)
    assert run.regret == pytest.approx(sums.max() / judged, abs=1e-9)


@pytest.mark.parametrize("share", [None, 0.1])
def test_the_choice_never_reads_the_future(share: float | None) -> None:
    loads, noise, until = drifting(1, 24), drifting(2, 24), 16
    changed = np.concatenate([loads[:until], noise[until:]])
    controller = Controller("adaptive", interval=INTERVAL, moves=share, lag=1)
    runs = [replay(LoadTrace(each), SHAPE, [controller], warm_up=0).runs[0] for each in (loads, changed)]
    before, after = ([(each.decided, each.placement.phy2log.tolist()) for each in run.changes] for run in runs)
    assert [each for each in before if each[0] <= until] == [each for each in after if each[0] <= until]
    assert before != after  # the negative control: what comes later does change later maps


def test_moves_stay_under_the_cap_whatever_the_layers_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive, "STANDARD_ERRORS", 0.0)  # layers part at the least difference
    monkeypatch.setattr(adaptive, "CHANGE", np.inf)  # and windows of all lengths differ
    parted, plan = [], Adaptive.plan

    def watched(self: Adaptive, past: np.ndarray, in_use: Placement) -> Placement | None:
        new = plan(self, past, in_use)
        assert self.followed is not None
        parted.append(len(set(self.followed.tolist())) > 1)
        return new

    monkeypatch.setattr(Adaptive, "plan", watched)
    run = replay(LoadTrace(drifting(3, 100)), SHAPE, [Controller("adaptive", interval=INTERVAL, moves=0.13)], warm_up=0).runs[0]
    assert any(parted)
    assert all(moved(new.placement, old.placement, SHAPE).sum() <= int(0.13 * 120) for old, new in pairwise(run.changes))


def test_windows_begin_behind_a_change_of_the_traffic() -> None:
    generator = np.random.default_rng(5)
    before, after = (np.exp(generator.normal(0, 1, (1, 2, 32))) for _ in range(2))
    loads = generator.poisson(300 * np.concatenate([np.repeat(before, 24, axis=0), np.repeat(after, 8, axis=0)]))
    session = Adaptive(Controller("adaptive", interval=INTERVAL), SHAPE)
    in_use, reach = Placement([CONTIGUOUS] * 2, 32), []
    for step in range(INTERVAL, len(loads) + 1, INTERVAL):
        in_use = session.plan(loads[:step], in_use) or in_use
        reach.append(max(session.steps(adviser) for adviser in session.advisers) // INTERVAL)
    assert reach == [*range(1, 13), 1, 2, 3, 4]


def test_a_layer_goes_its_own_way_only_where_that_is_certain() -> None:
    session = Adaptive(Controller("adaptive", interval=INTERVAL), SHAPE)
    generator = np.random.default_rng(0)
    session._advised = dict.fromkeys(range(2), Placement([CONTIGUOUS] * 3, 32))  # noqa: SLF001
    for _ in range(12):
        loss = np.full((len(FREE), 4), np.nan)
        loss[0], loss[1] = 0.2, 0.3
        loss[1, 1] = 0.1 + generator.normal(0, 0.01)  # surely better on layer 1
        loss[1, 2] = 0.19 + generator.normal(0, 0.3)  # perhaps better on layer 2
        session._losses.append(loss)  # noqa: SLF001
    best, own = session._choose(3)  # noqa: SLF001
    assert (best, own.tolist()) == (0, [0, 1, 0])


@pytest.mark.parametrize(("share", "slack"), [(None, 0.003), (0.1, 0.01)])
def test_adaptive_is_near_the_best_fixed_controller(share: float | None, slack: float) -> None:
    generator = np.random.default_rng(8)
    still = generator.poisson(np.tile(30 * np.exp(generator.normal(0, 1, (1, 3, 32))), (64, 1, 1)))
    kind, loads, shape = ("periodic", still, SHAPE)
    if share is not None:  # of more experts that drift as far a few soon have nearly all loads
        kind, loads, shape = "budgeted", drifting(9, 96, 6), Deployment(6, 8, 4)
    fixed = [Controller(kind, interval=INTERVAL, window=INTERVAL * window, moves=share) for window in (1, 4, 16)]
    *others, ours = replay(LoadTrace(loads), shape, [*fixed, Controller("adaptive", interval=INTERVAL, moves=share)]).runs
    assert ours.balancedness > max(run.balancedness for run in others) - slack
