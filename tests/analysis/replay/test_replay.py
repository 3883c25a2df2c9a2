"""Replays: what is served is exact, a controller knows the past alone, limits hold, bad input is one error."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap import Controller, Deployment, InputError, LoadTrace, Placement, replay, verify
from eplb_gap.analysis.replay.costs import Costs
from eplb_gap.analysis.replay.replay import LIMIT, Change, told_apart
from eplb_gap.heuristics.control.catalogue import KINDS
from eplb_gap.heuristics.control.controller import Kind
from eplb_gap.heuristics.moves.relabel import moved
from eplb_gap.problem.dead_ranks import with_dead
from eplb_gap.problem.step_makespans import step_makespans

pytestmark = pytest.mark.usefixtures("short_plans")

SHAPE = Deployment(6, 8, 4)
QUICK = "initial_program"  # the default searches tiny layers for milliseconds
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "static": {"interval": 3, "method": QUICK},
    "periodic": {"interval": 3, "window": 2, "method": QUICK},
    "budgeted": {"interval": 3, "window": 4, "moves": 0.5},
    "threshold": {"interval": 2, "below": 0.9, "method": QUICK},
    "round-robin": {"interval": 1, "window": 2, "method": QUICK},
    "adaptive": {"interval": 1, "moves": 0.2, "method": QUICK},
    "clairvoyant": {"interval": 3, "method": QUICK},
}


def drifting(seed: int, steps: int = 18, layers: int = 2, experts: int = 6) -> np.ndarray:
    """Return loads of experts that change their places, int64 [steps, layers, experts]."""
    rng = np.random.default_rng(seed)
    heat = np.cumsum(rng.normal(0, 0.7, (steps, layers, experts)), axis=0)
    return rng.poisson(200 * np.exp(heat))


def test_what_is_served_is_worked_out_by_hand() -> None:
    # Experts 0, 1 | 2, 3 at first: GPUs of 10 and 2. Planned on the first two steps: 0, 3 | 1, 2, at 6 and 6, from step 2 on.
    steps = LoadTrace([[[5, 5, 1, 1]]] * 4)
    run = replay(steps, Deployment(4, 4, 2), [Controller("static", interval=2)], warm_up=0).runs[0]
    assert (run.mean, run.served) == (Fraction(24), Fraction(10 + 10 + 6 + 6))
    assert run.by_step.tolist() == [0.6, 0.6, 1.0, 1.0]
    assert run.worst == (0, 0.6)
    [change] = run.changes
    assert (change.decided, change.serves, change.moves) == (2, 2, 2)
    assert run.moves_per_step == 0.5


@given(st.integers(0, 10**6), st.sampled_from(["flat", "unequal", "dead", "huge"]))
@settings(max_examples=40, deadline=None)
def test_step_makespans_are_those_of_verify(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    deployment = {
        "flat": SHAPE,
        "unequal": Deployment(6, slots_per_gpu=[1, 4, 3]),
        "dead": Deployment(6, 10, 5, active=[True, False, True, True, True]),
        "huge": Deployment(6, 60, 4),
    }[kind]
    live = deployment.live.num_slots
    row = rng.permutation(np.concatenate([np.arange(6), rng.integers(0, 6, live - 6)]))
    placement = with_dead(Placement([row], 6), deployment)
    loads = rng.integers(0, 2**59 if kind == "huge" else 1000, (3, 1, 6))
    tops, below = step_makespans(placement, loads, deployment)
    for step in range(3):
        assert Fraction(int(tops[step, 0]), int(below[0])) == verify(placement, loads[step], deployment)[0]


def in_use(changes: list[Change], step: int) -> list[list[int]] | None:
    """Return the map that serves a step, or None while it is the first one."""
    return next((change.placement.phy2log.tolist() for change in reversed(changes) if change.serves <= step), None)


@pytest.mark.parametrize("kind", [*KINDS, "saving"])
@pytest.mark.parametrize("lag", ["0", "1", "interval"])
def test_a_map_in_use_depends_on_nothing_that_its_lag_hides(kind: str, lag: str) -> None:
    loads, noise = drifting(1, steps=16), drifting(2, steps=16)
    settings = SETTINGS[kind] if kind in KINDS else {"interval": 3, "window": 4, "moves": 0.1, "burst": 0.3}
    kind = kind if kind in KINDS else "budgeted"
    controller = Controller(kind, **settings)
    if kind != "none":
        controller = replace(controller, lag=controller.interval if lag == "interval" else int(lag))
    before = replay(LoadTrace(loads), SHAPE, [controller], warm_up=0).runs[0]
    for until in (6, 12):  # steps before which every kind decides
        changed = np.concatenate([loads[:until], noise[until:]])
        after = replay(LoadTrace(changed), SHAPE, [controller], warm_up=0).runs[0]
        hidden = range(until + controller.lag + 1)
        same = all(in_use(before.changes, step) == in_use(after.changes, step) for step in hidden)
        # The negative control: the map of one that foresees was planned on the noise.
        assert same != KINDS[kind].foresees
        assert kind == "none" or in_use(before.changes, hidden[-1]) is not None
        if same:
            assert before.by_step[:until].tolist() == after.by_step[:until].tolist()
            assert before.by_step[until:].tolist() != after.by_step[until:].tolist()


@pytest.mark.parametrize("lag", [0, 1, 2])
def test_every_map_serves_from_its_lag_on_also_where_the_next_is_decided_by_then(lag: int) -> None:
    loads = drifting(10, steps=10)
    run = replay(LoadTrace(loads), SHAPE, [Controller("periodic", interval=2, lag=lag, method=QUICK)], warm_up=0).runs[0]
    assert [(change.decided, change.serves) for change in run.changes] == [(at, at + lag) for at in (2, 4, 6, 8)]
    maps = [Placement(in_use(run.changes, step) or [[0, 1, 2, 3, 4, 5, 0, 1]] * 2, 6) for step in range(10)]
    assert len({str(one.phy2log.tolist()) for one in maps}) > 2
    served = [sum(verify(one, step, SHAPE), Fraction(0)) for one, step in zip(maps, loads, strict=True)]
    assert run.served == sum(served)
    assert run.by_step.tolist() == pytest.approx([step.sum() / 4 / float(top) for step, top in zip(loads, served, strict=True)])


def test_no_view_of_the_past_reaches_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    loads, seen = drifting(3), []

    class Spy:
        def plan(self, past: np.ndarray, in_use: Placement) -> None:
            whole = past if past.base is None else past.base
            assert not past.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                past[0, 0, 0] = 1
            seen.append((len(past), int(np.asarray(whole)[len(past) :].sum())))

    monkeypatch.setitem(KINDS, "spy", Kind("spy", "", frozenset({"interval"}), lambda *_: Spy()))
    replay(LoadTrace(loads), SHAPE, [Controller("spy", interval=4)])
    assert seen == [(4, 0), (4, 0), (8, 0), (12, 0), (16, 0)]  # the first twice: not timed before it counts


def test_moves_stay_within_the_budget_but_for_the_first_map() -> None:
    run = replay(LoadTrace(drifting(4)), SHAPE, [Controller("budgeted", interval=2, moves=0.13)], warm_up=0).runs[0]
    assert [change.moves <= 0.13 * 16 for change in run.changes[1:]] == [True] * 7
    for old, new in pairwise(run.changes):
        assert new.moves == int(moved(new.placement, old.placement, SHAPE).sum())


@pytest.mark.parametrize(
    ("kind", "deployment", "allowed"),
    [
        ("budgeted", SHAPE, 0.13),
        ("budgeted", Deployment(8, 12, 4, num_nodes=2, num_groups=4), 0.03),
        ("adaptive", Deployment(8, 12, 4, num_nodes=2, num_groups=4), 0.03),
    ],
)
def test_saved_moves_are_spent_later_and_never_more_than_were_saved(kind: str, deployment: Deployment, allowed: float) -> None:
    loads = LoadTrace(drifting(4, steps=80, experts=deployment.num_experts))
    replicas, burst = 2 * deployment.num_slots, 0.25
    controller = Controller(kind, interval=2, moves=allowed, burst=burst)
    run = replay(loads, deployment, [controller], warm_up=0).runs[0]
    moves = [change.moves for change in run.changes[1:]]
    assert len(moves) == (38 if kind == "budgeted" else 35)  # the first map of an adaptive one waits
    for first in range(len(moves)):
        for last in range(first, len(moves)):
            together = sum(moves[first : last + 1])
            saved = min(first * allowed, burst)  # the first map may move anything, and nothing is saved before it
            assert together <= ((last - first + 1) * allowed + saved) * replicas + 1e-9
    # The negative control: a decision on its own keeps to its part no more.
    assert max(moves) > allowed * replicas
    strict = replay(loads, deployment, [Controller(kind, interval=2, moves=allowed)], warm_up=0).runs[0]
    assert kind == "adaptive" or run.balancedness > strict.balancedness


def test_groups_change_nodes_when_enough_is_saved() -> None:
    # Groups 0 and 1 share a node and are hot from step 8 on; an exchange moves 4 of 8 replicas, a decision may move 2.
    deployment = Deployment(8, 8, 4, num_nodes=2, num_groups=4)
    loads = LoadTrace([[[10, 10, 1, 1, 10, 10, 1, 1]]] * 8 + [[[10, 10, 10, 10, 1, 1, 1, 1]]] * 24)
    strict, saving = (
        replay(loads, deployment, [Controller("budgeted", interval=2, moves=0.25, burst=burst)], warm_up=0).runs[0]
        for burst in (0.0, 0.5)
    )
    assert strict.by_step[-1] < 0.6 < 0.9 < saving.by_step[-1]


def test_a_threshold_keeps_maps_that_are_good_enough() -> None:
    steady = LoadTrace(np.tile(drifting(5)[:1], (12, 1, 1)))
    always, seldom = (
        replay(steady, SHAPE, [Controller("threshold", interval=2, below=below, method=QUICK)], warm_up=0).runs[0]
        for below in (1.0, 0.01)
    )
    assert [len(run.changes) for run in (always, seldom)] == [5, 1]


def test_layers_take_their_turn() -> None:
    controller = Controller("round-robin", interval=2, window=2, layers=1, method=QUICK)
    changes = replay(LoadTrace(drifting(6, layers=3)), SHAPE, [controller]).runs[0].changes
    for number, (old, new) in enumerate(pairwise(changes), 1):
        kept = [layer for layer in range(3) if layer != number % 3]
        assert (old.placement.phy2log[kept] == new.placement.phy2log[kept]).all()


def test_foresight_is_a_limit_on_full_re_plans() -> None:
    # Both plan greedily; over many steps foresight must still win clearly.
    both = [Controller(kind, interval=2, method=QUICK) for kind in ("periodic", "clairvoyant")]
    result = replay(LoadTrace(drifting(7, steps=60)), SHAPE, both)
    blind, seer = (run.balancedness for run in result.runs)
    assert blind < seer


def test_costs_are_seconds_of_the_fullest_receiver() -> None:
    costs = Costs(expert_bytes=10.0, bandwidth=5.0, overlap=0.5, stall=1.0, stall_per_layer=0.25)
    assert costs.seconds(np.array([[0, 2], [1, 1]])) == 1.0 + 2 * 0.25 + 0.5 * 3 * 10 / 5
    assert costs.seconds(np.zeros((2, 2), dtype=np.int64)) == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "periodic", "interval": 0}, "interval is 0; an integer of at least 1"),
        ({"kind": "periodic", "interval": True}, "interval is True"),
        ({"kind": "periodic", "interval": 2, "lag": 3}, "lag is 3; at most the interval"),
        ({"kind": "budgeted", "moves": -0.1}, "moves is -0.1; a number from 0 to 1"),
        ({"kind": "budgeted", "moves": 1.5}, "moves is 1.5"),
        ({"kind": "budgeted", "moves": math.nan}, "moves is nan"),
        ({"kind": "budgeted", "moves": 0.1, "burst": 2}, "burst is 2; a number from 0 to 1"),
        ({"kind": "budgeted", "burst": 0.1}, "burst is 0.1, but moves is not set"),
        ({"kind": "periodic", "method": "best"}, "method is 'best'"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        Controller(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("controllers", "warm_up", "message"),
    [
        ([], None, "controllers is empty"),
        ([Controller("magic")], None, "kind is 'magic'"),
        ([Controller("static", moves=0.5)], None, "moves is set, which a controller of kind 'static' does not read"),
        ([Controller("periodic", interval=18)], None, "steps has 18 steps"),
        (
            [Controller("periodic", interval=2, window=40)],
            None,
            r"on step 40, .* interval and window \(--controller periodic:interval=\.\.\.,window=\.\.\.\)$",
        ),
        (
            [Controller("periodic", interval=17, lag=1)],
            None,
            r"serves its first map on step 18, more are needed, or a shorter interval \(--controller periodic:interval=\.\.\.\)$",
        ),
        ([Controller("none")], 18, "warm_up is 18"),
        ([Controller("none")], -1, "warm_up is -1"),
    ],
)
def test_what_cannot_be_replayed_is_named(controllers: list[Controller], warm_up: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replay(LoadTrace(drifting(1)), SHAPE, controllers, warm_up=warm_up)


def test_loads_of_other_experts_are_refused() -> None:
    with pytest.raises(InputError, match="steps has 5 experts; the deployment has 6"):
        replay(LoadTrace(drifting(1, experts=5)), SHAPE, [Controller("none")])


@pytest.mark.parametrize("lengths", [[10, 20], 0, True, "10", None])
def test_windows_of_different_lengths_are_refused(lengths: object) -> None:
    with pytest.raises(InputError, match="one positive integer, the steps of every window, is needed"):
        replay(LoadTrace(drifting(1), {"window_steps": lengths}), SHAPE, [Controller("none")])


def test_controllers_of_one_label_are_told_apart() -> None:
    given = [Controller("none"), Controller("none"), Controller("static", "none"), Controller("static", "none #2", interval=3)]
    names = ["none", "none #2", "none #3", "none #2 #2"]
    assert [one.label for one in told_apart(given)] == names
    assert [one.kind for one in told_apart(given)] == ["none", "none", "static", "static"]
    assert [one.label for one in told_apart(told_apart(given))] == names
    result = replay(LoadTrace(drifting(1, steps=4)), SHAPE, given[:2])
    assert [run.controller.label for run in result.runs] == names[:2]


@pytest.mark.parametrize(
    ("at", "finished", "missing"),
    [
        ("none", [], ("none", "periodic (interval 2, method initial_program)", LIMIT)),
        ("periodic", ["none"], ("periodic (interval 2, method initial_program)", LIMIT)),
        (LIMIT, ["none", "periodic"], (LIMIT,)),
    ],
)
def test_an_interrupt_keeps_what_is_finished_and_names_the_rest(at: str, finished: list[str], missing: tuple[str, ...]) -> None:
    def stop(label: str, done: int, total: int) -> None:
        if label.startswith(at):
            raise KeyboardInterrupt

    both = [Controller("none"), Controller("periodic", interval=2, method=QUICK)]
    result = replay(LoadTrace(drifting(1, steps=6)), SHAPE, both, limit=2, tick=stop)
    assert result.interrupted
    assert [run.controller.kind for run in result.runs] == finished
    assert result.missing == missing
