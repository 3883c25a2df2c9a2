"""Controls answer as they must: which window, and which way of planning, is known before anything is served."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from eplb_gap.analysis.replay.replay import replay
from eplb_gap.experiments.loads.control_traces import CONTROLS, drifting, recurring, regimes, stationary
from eplb_gap.experiments.measuring.rows import RESULTS
from eplb_gap.heuristics.control.controller import Controller
from eplb_gap.problem import Deployment, InputError, LoadTrace

DEPLOYMENT = Deployment(64, 72, 8)
SHAPE = {"layers": 2, "experts": 64, "tokens": 512}  # as many tokens an expert as at full size
NOISE = 0.004  # what two runs on loads of this size differ by where nothing tells them apart


def by_step(trace: LoadTrace, *windows: int, method: str = "fast") -> list[np.ndarray]:
    """Return the balancedness of all steps after the longest window, for each window of a re-plan every ten steps."""
    controllers = [Controller("periodic", interval=10, window=window, method=method) for window in windows]
    return [run.by_step[run.first :] for run in replay(trace, DEPLOYMENT, controllers, warm_up=160).runs]


@pytest.mark.parametrize("seed", [0, 1])
def test_where_nothing_changes_the_longer_window_wins(seed):
    served = [steps.mean() for steps in by_step(stationary(seed, steps=400, **SHAPE), 2, 10, 40, 160)]
    assert all(longer > shorter - NOISE for shorter, longer in itertools.pairwise(served))
    assert served[-1] > served[0] + 3 * NOISE


@pytest.mark.parametrize("seed", [0, 1])
def test_where_loads_drift_the_best_window_is_neither_the_shortest_nor_the_longest(seed):
    shortest, middle, longest = (steps.mean() for steps in by_step(drifting(seed, steps=400, **SHAPE), 1, 10, 160))
    assert middle > max(shortest, longest) + 3 * NOISE


@pytest.mark.parametrize("seed", [0, 1])
def test_after_a_change_the_short_window_wins_and_long_after_it_the_long_one(seed):
    trace = regimes(seed, steps=800, mean_steps=200, **SHAPE)
    starts = np.array([-160, *trace.provenance["changes"]])
    steps = np.arange(160, 800)
    age = steps - starts[np.searchsorted(starts, steps, side="right") - 1]
    short, long = by_step(trace, 10, 160)
    after, settled = (age >= 20) & (age < 60), age >= 170
    assert after.sum() >= 40 and settled.sum() >= 40
    assert short[after].mean() > long[after].mean() + 10 * NOISE
    assert long[settled].mean() > short[settled].mean()


@pytest.mark.parametrize("seed", [0, 1])
def test_where_domains_alternate_planning_on_samples_beats_planning_on_their_sum(seed):
    trace = recurring(seed, steps=320, **SHAPE)
    ((on_sum,), (on_samples, on_pairs)) = by_step(trace, 40), by_step(trace, 40, 80, method="sample-average")
    # Eight samples of ten steps are each the sum of both domains: it is what the method sees that counts, not the method.
    assert on_samples.mean() > max(on_sum.mean(), on_pairs.mean()) + 10 * NOISE


def test_skew_and_noise_are_those_of_recorded_steps_of_one_traffic():
    steps = LoadTrace.load(RESULTS / "traces" / "recorded-steps.npz")
    recorded, made = LoadTrace(steps.loads[100:500]), stationary(0, steps=200)  # the phase called stable
    assert made.loads.sum(axis=2).tolist() == [[int(steps.loads[0, 0].sum())] * 8] * 200
    for window in (1, 10, 50):
        ours, theirs = made.windowed(window), recorded.windowed(window)
        assert ours.skew()["cv"].mean() == pytest.approx(theirs.skew()["cv"].mean(), rel=0.1)
        assert ours.drift().mean() == pytest.approx(theirs.drift().mean(), rel=0.15)
        assert ours.skew(8)["group_max_over_mean"].mean() == pytest.approx(theirs.skew(8)["group_max_over_mean"].mean(), rel=0.1)


def test_log_shares_forget_as_fast_as_said():
    logs = np.log(drifting(0, steps=400, layers=4, tokens=10**6, memory=40).loads)
    logs -= logs.mean(axis=2, keepdims=True)
    covariance = [(logs[:-lag] * logs[lag:]).mean() for lag in (40, 80)]  # noise of steps is in no lag but 0
    assert covariance[1] / covariance[0] == pytest.approx(np.exp(-1), abs=0.1)


def test_changes_come_at_poisson_times():
    numbers = [len(regimes(seed, steps=500, layers=1, experts=8, mean_steps=50).provenance["changes"]) for seed in range(60)]
    assert np.mean(numbers) == pytest.approx(10, abs=1.3)
    assert np.var(numbers) == pytest.approx(10, rel=0.5)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_seed_is_a_trace_that_says_what_it_is(name):
    made, again, other = (CONTROLS[name](seed, steps=20, layers=2, experts=16) for seed in (0, 0, 1))
    assert made.loads.shape == (20, 2, 16)
    assert (made.loads == again.loads).all() and (made.loads != other.loads).any()
    assert made.provenance["kind"] == "synthetic" and made.provenance["control"] == name
    assert made.provenance["seed"] == 0 and made.provenance["window_steps"] == 1


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (stationary, {"seed": -1}, "seed is -1"),
        (stationary, {"steps": 0}, "steps is 0"),
        (stationary, {"experts": 60}, "experts is 60; a multiple of the 8 groups"),
        (drifting, {"memory": 0.0}, "memory is 0"),
        (drifting, {"memory": float("nan")}, "memory is nan"),
        (regimes, {"mean_steps": 0.5}, "mean_steps is 0.5"),
        (recurring, {"turn": 0}, "turn is 0"),
    ],
)
def test_bad_arguments_are_named(make, arguments, message):
    with pytest.raises(InputError, match=message):
        make(**{"seed": 0, **arguments})
