"""Deployments of every kind with loads and maps, and the judges of what functions make of them, for test_crossing."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eplb_gap.analysis import (
    alternatives,
    calibration,
    capacity,
    evaluate,
    explain,
    per_step,
    protocol,
    protocol_runs,
    user_program,
)
from eplb_gap.analysis.candidates import candidates
from eplb_gap.analysis.online import calibrate, host_defaults, host_flags, trial
from eplb_gap.analysis.online import report as online_report
from eplb_gap.analysis.replay import limits, replay
from eplb_gap.analysis.step_time import predict
from eplb_gap.analysis.step_time.evaluated import times_of
from eplb_gap.analysis.step_time.hinge import Hinge
from eplb_gap.analysis.step_time.profile import Profile, Tiles
from eplb_gap.analysis.watch import scored as scored_calls
from eplb_gap.analysis.watch.follow import watch
from eplb_gap.analysis.windows import Windows
from eplb_gap.heuristics import registry
from eplb_gap.heuristics.control import catalogue, controller
from eplb_gap.heuristics.moves import lost_experts, relabel
from eplb_gap.heuristics.plugins import recording
from eplb_gap.problem import Deployment, Instance, LoadTrace, Placement, metrics, step_makespans, validation
from eplb_gap.problem import shares as token_shares
from eplb_gap.problem.bounds import sample_average as judged_average
from eplb_gap.problem.bounds.bounds import best_joint_bound
from eplb_gap.problem.certificate import check as check_certificate
from eplb_gap.problem.certificate import write as write_certificate
from eplb_gap.problem.dead_ranks import live_slots, with_dead, without_dead
from eplb_gap.problem.formats.loads.recorded_calls import recorded_deployment
from eplb_gap.problem.formats.maps import map_checks, maps, recorded_map
from eplb_gap.solvers import hierarchical, planner_maps
from eplb_gap.solvers.engine import Limits
from eplb_gap.solvers.engines import first_pass, oracle
from eplb_gap.solvers.serving import sample_average_exact as average_exact
from eplb_gap.solvers.serving import sample_average_oracle as average_oracle

DEPLOYMENTS = {
    "flat": Deployment(4, 8, 4),
    "hierarchical": Deployment(4, 8, 4, 2, 2),
    "no spare slot": Deployment(4, 4, 2),
    "one slot per GPU": Deployment(4, 6, 6),
    "distinct": Deployment(4, 8, 4, duplicates="forbidden"),
    "unequal": Deployment(4, slots_per_gpu=[1, 3, 2]),
    "unequal, distinct": Deployment(4, slots_per_gpu=[1, 3, 2], duplicates="forbidden"),
    "dead": Deployment(4, 8, 4, active=[True, False, True, True]),
    "dead, distinct": Deployment(4, 8, 4, active=[False, True, True, True], duplicates="forbidden"),
    "unequal left by dead": Deployment(4, slots_per_gpu=[2, 1, 3, 2], active=[True, True, False, True]),
    "alike left by dead": Deployment(4, slots_per_gpu=[2, 3, 2], active=[True, False, True]),
}
WINDOWS = np.array(
    [
        [[40, 4, 10, 30], [0, 0, 0, 0], [7, 7, 7, 7], [50, 0, 0, 0]],
        [[10, 30, 25, 4], [0, 3, 0, 0], [7, 7, 7, 7], [0, 50, 0, 0]],
        [[40, 6, 12, 20], [0, 0, 0, 0], [5, 5, 5, 5], [60, 0, 0, 0]],
    ]
)
"""Three windows of four layers: drifting, without load, tied, one-hot."""


@dataclass(frozen=True)
class Case:
    """A deployment with loads, a map planned on other loads, and what calls need beside them."""

    deployment: Deployment

    @property
    def loads(self) -> np.ndarray:
        """Loads of the last window."""
        return WINDOWS[-1]

    @property
    def tensor(self) -> Any:
        """The loads as a tensor."""
        import torch

        return torch.tensor(self.loads)

    @cached_property
    def placement(self) -> Placement:
        """A legal map."""
        return registry.rebalance(WINDOWS[0], self.deployment)

    @cached_property
    def other(self) -> Placement:
        """Another one."""
        return registry.rebalance(WINDOWS[1], self.deployment)

    @property
    def trace(self) -> LoadTrace:
        """All windows."""
        return LoadTrace(WINDOWS)

    @property
    def folder(self) -> Path:
        """A new folder."""
        return Path(tempfile.mkdtemp())

    def legal(self, placement: Placement) -> list[Fraction]:
        """Judge a map; on dead GPUs it must hold nothing."""
        found = validation.verify(placement, self.loads, self.deployment)
        dead = np.setdiff1d(np.arange(self.deployment.num_slots), live_slots(self.deployment))
        assert (placement.ranks[:, dead] == -1).all()
        assert sum(found) >= self.loads.sum() / self.deployment.live.num_gpus
        return found

    def split_well(self, found: token_shares.TokenSplit) -> None:
        """Judge a split of the map: it meets the bound of its GPUs."""
        upper, lower = validation.verify_split(self.placement, found, self.loads, self.deployment)
        assert all(low <= up <= low * (1 + Fraction(1, 10**6)) for up, low in zip(upper, lower, strict=True))

    def raises_gpus(self, loads: np.ndarray) -> None:
        """Judge loads of GPUs: those of the live ones, with all tokens."""
        assert loads.shape == (len(self.loads), self.deployment.live.num_gpus)
        np.testing.assert_allclose(loads.sum(axis=1), self.loads.sum(axis=1))


@dataclass(frozen=True)
class Entry:
    """A call and the deployments that it refuses."""

    call: Callable[[Case], Any]
    refuses: Callable[[Deployment], bool] = lambda deployment: False


def unequal(deployment: Deployment) -> bool:
    """Whether the live GPUs have unequal slots."""
    return not deployment.live.is_regular


def irregular(deployment: Deployment) -> bool:
    """Whether slots are unequal or GPUs dead."""
    return not deployment.is_regular


def flat(deployment: Deployment) -> bool:
    """Whether there are no nodes."""
    return deployment.policy == "global"


def nodes(deployment: Deployment) -> bool:
    """Whether there are nodes."""
    return deployment.policy == "hierarchical"


def same_map(case: Case, placement: Placement) -> None:
    """Judge a map that was read or written: the map of the case, on the live GPUs."""
    names = live_slots(case.deployment)
    by_gpu = [map_checks.experts_by_gpu(one, case.deployment) for one in (placement, case.placement)]
    assert [[sorted(g) for g in layer] for layer in by_gpu[0]] == [[sorted(g) for g in layer] for layer in by_gpu[1]]
    assert placement.phy2log[:, names].shape == case.placement.phy2log[:, names].shape


def improved(case: Case) -> None:
    """Judge what the methods that improve a map in use make of one: legal, and what they did not move in its slot."""
    for heuristic in registry.HEURISTICS.values():
        if heuristic.improve is None or heuristic.refusal(case.deployment.live) is not None:
            continue
        found = registry.rebalance(case.loads, case.deployment, heuristic.name, previous=case.other)
        case.legal(found)
        changed = (found.phy2log != case.other.phy2log).sum(axis=1)
        assert (changed == relabel.moved(found, case.other, case.deployment)).all()


def written_and_read(case: Case, name: str) -> None:
    path = case.folder / "map"
    maps.write_map(path, case.placement, case.deployment, name, [0, 1, 2, 3], 4)
    same_map(case, maps.read_map(path, case.deployment, name, [0, 1, 2, 3]))


def certificate(case: Case) -> None:
    bounds = [best_joint_bound(Instance.of_layer(row, case.deployment)) for row in case.loads]
    path = case.folder / "certificate.json"
    write_certificate(path, case.loads, case.deployment, case.placement, bounds)
    assert check_certificate(path).upper == case.legal(case.placement)


def solved(case: Case, solution: Any) -> None:
    assert case.legal(solution.placement) == solution.upper
    assert all(low <= up for low, up in zip(solution.lower, solution.upper, strict=True))


@cache
def least_average(deployment: Deployment) -> Fraction:
    """Return the least mean makespan of the first layer over the windows, by brute force."""
    return average_oracle.least_sample_average(WINDOWS[:, 0], deployment)


def between(case: Case, value: Fraction, bound: Fraction) -> None:
    assert bound <= least_average(case.deployment) <= value


def bounded_average(case: Case) -> None:
    value = judged_average.sample_average_makespan(case.placement, WINDOWS, case.deployment)[0]
    bound = judged_average.sample_average_bound(WINDOWS[:, 0], case.deployment)
    assert judged_average.proven_average(bound, WINDOWS[:, 0], case.deployment) == bound.value
    between(case, value, bound.value)
    between(case, value, judged_average.interval_bounds(WINDOWS[:, 0], case.deployment)[1])


def solved_average(case: Case, method: str) -> None:
    found = average_exact.solve_sample_average(WINDOWS[:, :1], case.deployment, method, 20.0)
    between(case, found.upper[0], found.lower[0])
    assert found.upper[0] == least_average(case.deployment)


def only_moves(case: Case, placement: Placement) -> None:
    """Judge a map made of another: legal, and only what moves has changed its slot."""
    case.legal(placement)
    names = live_slots(case.deployment)
    changed = (placement.phy2log != case.other.phy2log)[:, names].sum(axis=1)
    assert (changed == relabel.moved(placement, case.other, case.deployment)).all()


def kept(case: Case) -> None:
    kept = relabel.keep_slots(case.placement.phy2log, case.other.phy2log, case.deployment)
    case.legal(with_dead(without_dead(Placement(kept, 4), case.deployment), case.deployment))


def recovered(case: Case) -> None:
    """Every slot of the dead GPUs gets the hottest expert, and the others forget it."""
    slots = np.array([1, 2, 3] * 4)[: case.deployment.num_slots]
    previous = Placement([slots], 4)
    lost = lost_experts.lost_experts(previous, case.deployment)
    assert lost == ([[0]] if case.deployment.dead_gpus else [[]])
    maps_left = lost_experts.with_lost_experts(case.loads[:1].astype(float), previous, case.deployment, lost)
    assert (maps_left == 0).sum() == len(lost[0])


def evaluated(case: Case, placed: Any) -> None:
    windows = Windows.of(case.trace)
    bounds = evaluate.certified_bounds(windows, case.deployment)
    found = evaluate.evaluate_map("map", placed, windows, case.deployment, bounds, case.other)
    assert found.serving.makespans == case.legal(placed)
    assert not found.note
    assert all(gap >= 0 for score in (found.planning, found.serving) for gap in score.gaps)
    assert 0 < found.serving.balancedness_gpu <= 1


def explained(case: Case, function: Callable[..., Any]) -> None:
    found = function(Windows.of(case.trace), case.deployment, case.placement, "map", "fast")
    assert found.levels[0].upper == evaluate.mean_loads(case.loads, case.deployment)
    assert found.levels[-1].upper == case.legal(case.placement)
    assert sum(found.steps().values()) == found.excess()


def evaluated_from_a_trace(case: Case) -> None:
    for planned in (case.placement, "fast"):
        found = evaluate.evaluate(case.trace, case.deployment, planned)
        assert all(gap >= 0 for score in (found.planning, found.serving) for gap in score.gaps)
        assert not found.note
    placed = evaluate.planned_on(Windows.of(case.trace), case.deployment, "fast")
    assert case.legal(placed) == found.serving.makespans


def explained_from_a_trace(case: Case) -> None:
    found = explain.explain(case.trace, case.deployment)
    assert sum(found.steps().values()) == found.excess()


def compared(case: Case) -> None:
    found, left_out = alternatives.alternatives(Windows.of(case.trace), case.deployment, "fast")
    assert found
    assert not {one.name for one in found} & {one.name for one in left_out}


def calibrated(case: Case) -> None:
    wanted = (calibration.DEFAULT, calibration.DEEPSEEK)
    tried = [one for one in candidates() if one.name in wanted]
    found = calibration.calibrate(WINDOWS, case.deployment, tried)
    assert found.chosen.name in wanted
    assert all(gap >= 0 for one in tried for gap in one.gaps)


def calibrated_online(case: Case) -> None:
    """Choose a controller, judge its maps on what is held out, and write flags for every host."""
    steps = LoadTrace(np.concatenate([WINDOWS] * 6)[:16])
    few = [controller.Controller("budgeted", interval=1, moves=0.25), controller.Controller("threshold", interval=2, gain=0.1)]
    result = calibrate.calibrate_online(steps, case.deployment, candidates=few)
    for one in result.held_out.judged.values():
        assert 0 < one.balancedness.value <= 1
        for change in one.run.changes:
            case.legal(change.placement)
    found = [host_flags.host_flags(result.controller, case.deployment, 4, host) for host in host_defaults.HOSTS]
    assert all(one.flags or one.cannot for one in found)
    assert online_report.report(result).count("not said: ") == sum(bool(one.flags and one.cannot) for one in found)


def tried_out(case: Case) -> None:
    trials = trial.Trials(lambda *_: None, None)
    run = trials.run(LoadTrace(np.concatenate([WINDOWS] * 2)), case.deployment, controller.Controller("periodic", interval=2), 2)
    assert [case.legal(change.placement) for change in run.changes]
    assert trials.done == 1


def sized(case: Case) -> None:
    found = capacity.capacity(case.trace, case.deployment, 0.5, case.deployment.live.num_slots, seconds=2.0)
    assert found.num_gpus == case.deployment.live.num_gpus
    assert all(0 < step.reached <= step.limit <= 1 for step in found.steps)


def scored(case: Case) -> None:
    program = protocol.timed(registry.METHODS["fast"], case.deployment)
    case.legal(program(case.loads).placement)
    assert protocol.score("gpu", WINDOWS, case.deployment, program).legal


def all_scored(case: Case) -> None:
    (found,) = protocol_runs.score_all("gpu", WINDOWS, case.deployment, ["fast"], 5.0).values()
    assert found.legal or (unequal(case.deployment) and found.status.startswith("failed"))


def stepped(case: Case) -> None:
    found = per_step.per_step(case.placement, WINDOWS, case.deployment)
    assert (found.by_step <= 1 + 1e-12).all()
    assert found.of_window == metrics.balancedness_gpu(case.placement, WINDOWS.sum(axis=0), case.deployment)


def timed(case: Case) -> None:
    """A map's times are no less than what no map goes below."""
    profile = Profile("p", "s", "m", hinge=Hinge(None, 0.5, 1.0), tiles=Tiles(10.0, 1.0, 8, 4.0))
    lower = [best_joint_bound(Instance.of_layer(layer, case.deployment)).value for layer in case.loads]
    least = predict.least_time(profile, lower, case.loads, case.deployment)
    time = predict.map_time(profile, case.placement, case.loads, case.deployment)
    assert time.imbalance == predict.imbalance(case.placement, case.loads, case.deployment)
    for name in ("imbalance", "relative", "expert_seconds"):
        assert getattr(time, name) >= getattr(least, name) * (1 - 1e-12) > 0


def timed_on_both_windows(case: Case) -> None:
    """The imbalance of an evaluation's makespans is that of its map, and no part of its time is below its bound."""
    profile = Profile("p", "s", "m", hinge=Hinge(None, 0.5, 1.0), tiles=Tiles(10.0, 1.0, 8, 4.0))
    windows = Windows.of(case.trace)
    bounds = evaluate.certified_bounds(windows, case.deployment)
    result = evaluate.evaluate_map("map", case.placement, windows, case.deployment, bounds)
    found = times_of(profile, result, case.placement, windows, case.deployment, 1)
    for timed, loads in ((found.planning, windows.planning), (found.serving, windows.serving)):
        assert abs(timed.time.imbalance - predict.imbalance(case.placement, loads, case.deployment)) < 1e-12
        assert timed.gap is not None and timed.gap >= 0
        assert all(low is not None and up >= low * (1 - 1e-12) for _, up, low in timed.parts())
        assert len(timed.parts()) == 1


def searched(case: Case) -> None:
    findings = hierarchical.search_layer(
        case.loads[0], case.deployment, oracle.search, Limits(time.monotonic() + 5), None, lambda: None
    )
    maps_found = [Placement([found], 4) for found in findings if isinstance(found, tuple)]
    assert validation.verify(maps_found[-1], case.loads[:1], case.deployment)


def first_passes(case: Case) -> None:
    for row in case.loads:
        found = first_pass.first_pass(row, case.deployment, 0.0, 0.02, 0)
        assert found is not None
        if found.slots is not None:
            assert validation.verify(Placement([found.slots], 4), [row], case.deployment)[0] >= found.bound.value


def planned_by_all(case: Case) -> None:
    live = case.deployment.live
    for heuristic in (*planner_maps.planners(live, True), *planner_maps.planners(live, False)):
        for row, slots in zip(case.loads, planner_maps.planner_maps(heuristic, case.loads, live), strict=True):
            assert slots is None or validation.verify(Placement([slots], 4), [row], live)


def program_file(case: Case) -> user_program.UserProgram:
    path = case.folder / "program.py"
    path.write_text("")
    return user_program.UserProgram(path, case.deployment)


def judged(case: Case) -> None:
    even = token_shares.even_shares(case.placement, case.deployment)
    plain = validation.verify(case.placement, case.loads, case.deployment)
    assert validation.verify(case.placement, case.loads, case.deployment, even) == plain
    assert validation.makespans(case.placement, case.loads, case.deployment, even) == plain


def replayed(case: Case) -> None:
    """Replay every kind of controller over the windows, twice round: its maps are legal and serve what they can at best."""
    steps = LoadTrace(np.concatenate([WINDOWS, WINDOWS]))
    kinds = [controller.Controller(name, interval=1) for name, kind in catalogue.KINDS.items() if kind.plans]
    result = replay.replay(steps, case.deployment, [controller.Controller("none"), *kinds], limit=1)
    assert result.limit is not None
    for run in result.runs:
        assert 0 < run.balancedness <= 1
        assert run.served >= result.limit.interval_lower
        for change in run.changes:
            case.legal(change.placement)


def served_stepwise(case: Case) -> None:
    tops, below = step_makespans.step_makespans(case.placement, WINDOWS, case.deployment)
    for loads, row in zip(WINDOWS, tops, strict=True):
        found = [Fraction(int(top), int(unit)) for top, unit in zip(row, below, strict=True)]
        assert found == validation.verify(case.placement, loads, case.deployment)


def limited(case: Case) -> None:
    """Bound the windows as one interval: no map of ours is below it."""
    found = limits.certified_limit(WINDOWS, case.deployment, len(WINDOWS), 0)
    served = step_makespans.total(*step_makespans.step_makespans(case.placement, WINDOWS, case.deployment))
    assert found.step_lower <= found.interval_lower <= min(served, found.interval_upper)


def recorded(x: Case) -> None:
    """A call that is recorded keeps deployment and map; what is seen of it agrees with the judge, and no bound is above a map."""
    folder = x.folder / "records"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(recording.RECORD, str(folder))
        recording.record_call("numpy", x.loads, x.deployment, x.other, x.placement, rank=0)
        assert recording.flush(60)
    assert recorded_deployment(folder) == x.deployment
    makespans = x.legal(with_dead(without_dead(x.other, x.deployment), x.deployment))
    assert validation.verify(recorded_map.read_in_use(folder, x.deployment, None), x.loads, x.deployment) == makespans
    bounds = scored_calls.quick_bounds(x.loads, x.deployment)
    assert all(lower <= upper for lower, upper in zip(bounds, makespans, strict=True))
    [window] = watch(folder)
    assert window.served is not None
    assert window.served.gap == pytest.approx(float(sum(makespans) / sum(bounds) - 1))
    assert window.served.balancedness == pytest.approx(metrics.balancedness_gpu(x.other, x.loads, x.deployment))
    assert window.moved == relabel.moved(x.placement, x.other, x.deployment).sum()
