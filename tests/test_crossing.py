"""Every public function that takes a deployment, every heuristic and every engine, on every kind of deployment.

What comes out is judged, or one InputError or PlacementError says that it cannot be; nothing else is raised and no dead GPU is
used. A function that is not in the table fails here: it must be entered, with how it is called and what it may refuse.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from crossing import (
    DEPLOYMENTS,
    WINDOWS,
    Case,
    Entry,
    all_scored,
    bounded_average,
    calibrated,
    calibrated_online,
    certificate,
    compared,
    evaluated,
    evaluated_from_a_trace,
    explained,
    explained_from_a_trace,
    first_passes,
    flat,
    improved,
    irregular,
    judged,
    kept,
    limited,
    nodes,
    only_moves,
    planned_by_all,
    program_file,
    recorded,
    recovered,
    replayed,
    same_map,
    scored,
    searched,
    served_stepwise,
    sized,
    solved,
    solved_average,
    stepped,
    timed,
    timed_on_both_windows,
    tried_out,
    unequal,
    written_and_read,
)
from crossing_decode import DECODE, DECODED
from crossing_routing import NETWORK, ROUTED

from eplb_gap import heuristics, problem, solvers
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
from eplb_gap.analysis.online import (
    bootstrap,
    calibrate,
    choice,
    held_out,
    host_defaults,
    host_flags,
    trial,
)
from eplb_gap.analysis.online import candidates as online_candidates
from eplb_gap.analysis.online import report as online_report
from eplb_gap.analysis.replay import chain, costs, limits, replay, report
from eplb_gap.analysis.step_time import evaluated as timed_maps
from eplb_gap.analysis.step_time import predict
from eplb_gap.analysis.step_time import timed as times
from eplb_gap.analysis.watch import scored as scored_calls
from eplb_gap.heuristics import methods, own, registry
from eplb_gap.heuristics.config import PipelineConfig
from eplb_gap.heuristics.control import (
    adaptive,
    catalogue,
    contiguous,
    controller,
    controllers_file,
    foreseeing,
    kinds,
    presets,
    saved_moves,
)
from eplb_gap.heuristics.dispatch import replica_choice
from eplb_gap.heuristics.locality import grouping, plan_visits
from eplb_gap.heuristics.moves import lost_experts, migration, relabel, window_moves
from eplb_gap.heuristics.planner import fast, uneven
from eplb_gap.heuristics.plugins import hosted, planning, recording
from eplb_gap.heuristics.plugins.settings import Settings
from eplb_gap.heuristics.programs import evolved_programs, flashlb, peers, pipeline, sglang_vec, tensorrt_llm
from eplb_gap.heuristics.serving import forecast, sample_average, split_placement, token_split
from eplb_gap.problem import Deployment, InputError, Instance, PlacementError, metrics, shares, step_makespans, validation
from eplb_gap.problem.bounds import sample_average as averages
from eplb_gap.problem.certificate import write as write_certificate
from eplb_gap.problem.dead_ranks import live_slots, with_dead, without_dead
from eplb_gap.problem.formats.maps import certificate_map, map_checks, maps, phy2log, recorded_map
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.solvers import auto, facade, hierarchical, planner_maps
from eplb_gap.solvers.engines import first_pass
from eplb_gap.solvers.locality import hierarchical_front
from eplb_gap.solvers.serving import budgets, fixed_counts, split_lp
from eplb_gap.solvers.serving import sample_average_exact as average_exact
from eplb_gap.solvers.serving import sample_average_oracle as average_oracle

pytestmark = pytest.mark.usefixtures("short_plans")

REPLAY = (
    adaptive,
    catalogue,
    chain,
    contiguous,
    controller,
    controllers_file,
    costs,
    foreseeing,
    kinds,
    limits,
    presets,
    replay,
    report,
    step_makespans,
)
ONLINE = (bootstrap, calibrate, choice, held_out, host_defaults, host_flags, online_candidates, online_report, trial)
ANALYSES = (
    *REPLAY,
    *ONLINE,
    *NETWORK,
    *DECODE,
    alternatives,
    calibration,
    capacity,
    evaluate,
    explain,
    per_step,
    predict,
    protocol,
    protocol_runs,
    timed_maps,
    times,
    scored_calls,
    user_program,
)


def no_gpu_2(deployment: Deployment) -> bool:
    """Whether GPU 2 is dead or does not exist."""
    return deployment.num_gpus < 3 or not deployment.active[2]


def illegal(deployment: Deployment) -> bool:
    """Whether a published program refuses, or makes duplicates that are forbidden."""
    return irregular(deployment) or deployment.duplicates == "forbidden"


def tables(x: Case) -> list[list[int]]:
    """Return the map of a case as lists."""
    return x.placement.phy2log.tolist()


def even(x: Case) -> np.ndarray:
    """Return even shares of the map of a case."""
    return shares.even_shares(x.placement, x.deployment)


def split_found(x: Case) -> None:
    x.split_well(token_split.optimal_split(x.placement, x.loads, x.deployment))


def said_before(x: Case) -> None:
    """A record says before it plans whether it will; what it says of the live GPUs holds."""
    for heuristic in registry.HEURISTICS.values():
        if heuristic.plans(x.deployment.live):
            assert heuristic.refusal(x.deployment.live) is None
            assert registry.rebalance(x.loads, x.deployment, heuristic.name).num_slots == x.deployment.num_slots


def all_legal(x: Case) -> None:
    assert validation.legal_layers(x.placement, x.deployment).all()


def controlled(x: Case) -> None:
    """A controller in a server goes from the map in use by a full plan to maps within a number of moves."""
    controls = controller.Controller("budgeted", interval=1, moves=0.25)
    hosted.MODELS.clear()
    for loads, in_use in ((x.loads, x.other), (WINDOWS, None), (x.loads, x.placement)):
        x.legal(hosted.next_map(controls, loads, x.deployment, in_use, lambda: pytest.fail("the controller failed")))
    hosted.adopt(controls, x.loads, x.deployment, x.other)
    assert hosted.MODELS[x.loads.shape].newest is x.other


ROWS = np.array([[0, 1], [1, 3], [3, 0], [0, 1], [2, 0]])
"""Experts of five tokens."""


def sent(x: Case) -> None:
    """A rule sends every token to slots that hold its experts."""
    for rule in ("hashed", "local-first", "smallest-cover"):
        chosen = replica_choice.choose_replicas(ROWS, x.placement.phy2log[0], x.deployment, rule, np.array([0, 1, 0, 1, 1]))
        assert (x.placement.phy2log[0][chosen] == ROWS).all()


def few_visits(x: Case) -> None:
    """Maps for few node visits, from the planner's or within a number of moves of the one in use, are legal."""
    routing = RoutingTrace(np.stack([ROWS, ROWS[::-1], ROWS, np.tile(ROWS[:1], (5, 1))], axis=1), 4)
    for placement in plan_visits.visit_front(routing, x.deployment, [0.0, 0.5], seconds=0.01):
        x.legal(placement)
    only_moves(x, plan_visits.plan_visits(routing, x.deployment, x.other, max_moves=1, seconds=0.01))


def served(x: Case) -> None:
    """A planned map is served once."""
    asked = Settings(None, 0.0, None, maps.MapFile(x.placement.phy2log, "a map", phy2log.NPY), "")
    planning.SERVED.clear()
    assert planning.planned_map(0 * x.loads, x.deployment, asked) is None
    x.legal(planning.planned_map(x.loads, x.deployment, asked))
    assert planning.planned_map(x.loads, x.deployment, asked) is None


def priced(x: Case) -> None:
    """With nothing saved a move costs its part of what all replicas of a layer would; with all that can be saved, nothing."""
    empty, full = (saved_moves.SavedMoves(Fraction(1), Fraction(2), Fraction(saved)) for saved in (0, 3))
    replicas = len(x.loads) * len(live_slots(x.deployment))
    mean = x.loads.sum() / x.deployment.live.num_gpus
    assert empty.cost(x.loads, x.placement, x.deployment) == pytest.approx(saved_moves.HIGHEST * mean / replicas)
    assert full.cost(x.loads, x.placement, x.deployment) == 0


def hypergraph_grouped(x: Case) -> None:
    """The map is legal, or the package for it is not installed."""
    try:
        found = grouping.hypergraph_grouping(PAIRS, x.deployment)
    except InputError as error:
        if "not installed" not in str(error):
            raise
        x.deployment.require_regular("grouping")
        return
    validation.verify(found, PAIRS.loads(), x.deployment)


def front_of_groups(x: Case) -> None:
    """Every point's map is legal and within its interval."""
    for point in hierarchical_front.hierarchical_front(PAIRS, x.deployment, method="planner"):
        assert point.lower <= point.upper == validation.verify(point.placement, PAIRS.loads(), x.deployment)[0]


ROW = [0, 1, 2, 3]
PAIRS = RoutingTrace([[[0, 1]], [[0, 2]], [[0, 1]], [[3, 1]]], 4)
KERNEL = {
    validation.verify: Entry(judged),
    validation.makespans: Entry(judged),
    shares.even_shares: Entry(judged),
    validation.check: Entry(lambda x: validation.check(x.placement, x.deployment)),
    validation.legal_layers: Entry(all_legal),
    validation.verify_split: Entry(split_found),
    shares.split_bound: Entry(lambda x: shares.split_bound(x.placement.phy2log[0], x.loads[0], x.deployment, [2]), no_gpu_2),
    shares.gpu_loads_with_shares: Entry(
        lambda x: x.raises_gpus(shares.gpu_loads_with_shares(x.placement, even(x), x.loads, x.deployment))
    ),
    shares.balancedness_with_shares: Entry(
        lambda x: shares.balancedness_with_shares(x.placement, even(x), x.loads, x.deployment)
    ),
    write_certificate: Entry(certificate),
    live_slots: Entry(lambda x: live_slots(x.deployment)),
    without_dead: Entry(lambda x: validation.check(without_dead(x.placement, x.deployment), x.deployment.live)),
    with_dead: Entry(lambda x: x.legal(with_dead(without_dead(x.placement, x.deployment), x.deployment))),
    Instance.of_layer: Entry(lambda x: Instance.of_layer(x.loads[0], x.deployment)),
    Instance.of_node: Entry(lambda x: Instance.of_node(x.loads[0], x.deployment), irregular),
    metrics.gpu_loads: Entry(lambda x: x.raises_gpus(metrics.gpu_loads(x.placement, x.loads, x.deployment))),
    metrics.live_map: Entry(lambda x: metrics.live_map(x.placement, x.deployment)),
    metrics.balancedness_gpu: Entry(lambda x: metrics.balancedness_gpu(x.placement, x.loads, x.deployment)),
    metrics.duplicates: Entry(lambda x: metrics.duplicates(x.placement, x.deployment)),
    averages.sample_average_makespan: Entry(bounded_average),
    averages.sample_average_bound: Entry(bounded_average),
    averages.groups_value: Entry(lambda x: averages.groups_value(WINDOWS[:, 0], x.deployment, [Fraction(0)] * 3)),
    averages.interval_bounds: Entry(bounded_average),
    averages.maps_value: Entry(bounded_average),
    averages.counts_value: Entry(bounded_average),
    averages.proven_average: Entry(bounded_average),
    averages.ascend_shares: Entry(lambda x: averages.ascend_shares(WINDOWS[:, 0], x.deployment)),
}
FORMATS = {
    recorded_map.read_in_use: Entry(recorded),
    maps.read_map: Entry(lambda x: written_and_read(x, "phy2log-npy")),
    maps.write_map: Entry(lambda x: written_and_read(x, "phy2log-json")),
    certificate_map.read: Entry(
        lambda x: certificate_map.read({"schema": "", "deployment": {}, "phy2log": tables(x)}, "", x.deployment, None)
    ),
    map_checks.expert_list: Entry(lambda x: map_checks.expert_list(ROW, "", x.deployment)),
    map_checks.slot_row: Entry(lambda x: map_checks.slot_row(tables(x)[0], "", x.deployment)),
    map_checks.slot_table: Entry(lambda x: map_checks.slot_table(tables(x), "", x.deployment)),
    map_checks.slot_array: Entry(lambda x: map_checks.slot_array(x.placement.phy2log, "", x.deployment)),
    map_checks.gpu_map: Entry(
        lambda x: same_map(x, map_checks.gpu_map(map_checks.experts_by_gpu(x.placement, x.deployment), "", x.deployment))
    ),
    map_checks.experts_by_gpu: Entry(lambda x: map_checks.experts_by_gpu(x.placement, x.deployment)),
    **{
        function: Entry(partial(written_and_read, name=name), irregular if name == "vllm-ascend" else Entry.refuses)
        for name in maps.WRITTEN
        for function in (maps.FORMATS[name].read, maps.FORMATS[name].render)
    },
}
HEURISTICS = {
    registry.rebalance: Entry(lambda x: (x.legal(registry.rebalance(x.loads, x.deployment)), improved(x))),
    fast.plan: Entry(lambda x: x.legal(fast.plan(x.loads, x.deployment)), unequal),
    own.run_fast: Entry(lambda x: x.legal(own.run_fast("fast", x.loads, x.deployment)), unequal),
    methods.Heuristic.refusal: Entry(said_before),
    methods.Heuristic.plans: Entry(said_before),
    fast.checked_weight: Entry(lambda x: fast.checked_weight(x.loads, x.deployment)),
    uneven.plan: Entry(lambda x: x.legal(uneven.plan(x.loads, x.deployment)), lambda d: not flat(d)),
    forecast.choose: Entry(lambda x: forecast.choose(WINDOWS, x.deployment)),
    sample_average.plan: Entry(lambda x: x.legal(sample_average.plan(WINDOWS, x.deployment)), unequal),
    sample_average.patient_plan: Entry(lambda x: x.legal(sample_average.patient_plan(WINDOWS, x.deployment)), unequal),
    split_placement.plan: Entry(lambda x: x.legal(split_placement.plan(x.loads, x.deployment)), unequal),
    token_split.optimal_split: Entry(split_found),
    evolved_programs.gepa: Entry(
        lambda x: x.legal(evolved_programs.gepa(x.loads, x.deployment)), lambda d: illegal(d) or not flat(d)
    ),
    methods.run_config: Entry(lambda x: x.legal(methods.run_config(PipelineConfig(), x.loads, x.deployment)), illegal),
    pipeline.run: Entry(lambda x: pipeline.run(PipelineConfig(), x.tensor, x.deployment), irregular),
    methods.run_by_layer: Entry(lambda x: methods.run_by_layer(tensorrt_llm.plan_layer, x.loads, x.deployment), irregular),
    peers.tensorrt_llm: Entry(lambda x: peers.tensorrt_llm(x.loads, x.deployment), irregular),
    peers.vllm_ascend: Entry(lambda x: peers.vllm_ascend(x.loads, x.deployment), irregular),
    peers.flashlb: Entry(lambda x: peers.flashlb(x.loads, x.deployment), irregular),
    flashlb.plan: Entry(lambda x: flashlb.plan(WINDOWS, x.deployment), irregular),
    peers.sglang_vec: Entry(lambda x: peers.sglang_vec(x.loads, x.deployment), irregular),
    sglang_vec.plan: Entry(lambda x: sglang_vec.plan(WINDOWS, x.deployment), irregular),
    peers.swift_balance: Entry(lambda x: peers.swift_balance(x.loads, x.deployment), irregular),
    peers.swift_balance_from: Entry(lambda x: peers.swift_balance_from(x.loads, x.deployment, x.other), irregular),
    hosted.next_map: Entry(controlled),
    hosted.adopt: Entry(controlled),
    planning.planned_map: Entry(served),
    maps.MapFile.read: Entry(served),
    recording.record_call: Entry(recorded),
    saved_moves.SavedMoves.cost: Entry(priced),
    planning.replan: Entry(lambda x: x.legal(planning.replan(x.loads, x.deployment, x.other))),
    window_moves.replan_on_windows: Entry(
        lambda x: only_moves(x, window_moves.replan_on_windows(np.stack([x.loads, x.loads[:, ::-1]]), x.deployment, x.other, 3))
    ),
    migration.replan: Entry(lambda x: only_moves(x, migration.replan(x.loads, x.deployment, x.other, total_moves=3))),
    migration.front: Entry(lambda x: migration.front(x.loads, x.deployment, x.other)),
    lost_experts.lost_experts: Entry(recovered),
    lost_experts.with_lost_experts: Entry(recovered),
    replica_choice.choose_replicas: Entry(sent, irregular),
    plan_visits.plan_visits: Entry(few_visits, lambda d: irregular(d) or nodes(d)),
    plan_visits.visit_front: Entry(few_visits, lambda d: irregular(d) or nodes(d)),
    relabel.moved: Entry(lambda x: only_moves(x, relabel.relabel(x.placement, x.other, x.deployment))),
    relabel.relabel: Entry(lambda x: only_moves(x, relabel.relabel(x.placement, x.other, x.deployment))),
    relabel.adopt_where_better: Entry(lambda x: x.legal(relabel.adopt_where_better(x.placement, x.other, x.loads, x.deployment))),
    relabel.keep_slots: Entry(kept),
    grouping.spectral_grouping: Entry(
        lambda x: validation.verify(grouping.spectral_grouping(PAIRS, x.deployment), PAIRS.loads(), x.deployment), irregular
    ),
    grouping.hypergraph_grouping: Entry(hypergraph_grouped, irregular),
    grouping.greedy_grouping: Entry(
        lambda x: validation.verify(grouping.greedy_grouping(PAIRS, x.deployment), PAIRS.loads(), x.deployment), irregular
    ),
}
SOLVERS = {
    facade.solve: Entry(lambda x: solved(x, facade.solve(x.loads, x.deployment, initial=x.placement))),
    auto.compile_engines: Entry(lambda x: auto.compile_engines(x.deployment)),
    auto.closes_at_once: Entry(lambda x: auto.closes_at_once(x.deployment)),
    auto.enumerates: Entry(lambda x: auto.enumerates(x.deployment)),
    planner_maps.planners: Entry(lambda x: list(planner_maps.planners(x.deployment.live, True))),
    planner_maps.planner_maps: Entry(planned_by_all),
    auto.rests_on_the_mean: Entry(lambda x: auto.rests_on_the_mean(x.deployment)),
    budgets.slot_curves: Entry(
        lambda x: x.legal(budgets.slot_curves(x.loads, x.deployment, [x.deployment.num_slots]).placements[0]),
        lambda d: bool(d.unequal_slots),
    ),
    first_pass.load_kernels: Entry(lambda x: first_pass.load_kernels(x.deployment)),
    first_pass.first_pass: Entry(first_passes, irregular),
    fixed_counts.best_assignment: Entry(
        lambda x: x.legal(fixed_counts.best_assignment(x.placement, x.loads, x.deployment).placement)
    ),
    hierarchical.NodeProblems: Entry(lambda x: hierarchical.NodeProblems(x.loads[0], x.deployment), irregular),
    hierarchical.search_layer: Entry(searched, irregular),
    hierarchical_front.hierarchical_front: Entry(front_of_groups, flat),
    hierarchical_front.set_visits: Entry(lambda x: hierarchical_front.set_visits(PAIRS.rows(0), x.deployment), flat),
    average_exact.solve_sample_average: Entry(lambda x: [solved_average(x, method) for method in average_exact.MODELS]),
    average_oracle.least_sample_average: Entry(bounded_average),
    split_lp.lp_split: Entry(lambda x: x.split_well(split_lp.lp_split(x.placement, x.loads, x.deployment))),
}
JUDGING = {
    evaluate.certified_bounds: Entry(lambda x: evaluated(x, x.placement)),
    evaluate.evaluate: Entry(evaluated_from_a_trace),
    evaluate.planned_on: Entry(evaluated_from_a_trace),
    evaluate.evaluate_map: Entry(lambda x: evaluated(x, x.placement)),
    scored_calls.quick_bounds: Entry(recorded),
    evaluate.mean_loads: Entry(lambda x: evaluate.mean_loads(x.loads, x.deployment)),
    explain.explain: Entry(explained_from_a_trace, unequal),
    explain.explain_map: Entry(lambda x: explained(x, explain.explain_map), unequal),
    alternatives.alternatives: Entry(compared),
    explain.decompose: Entry(lambda x: explained(x, explain.decompose), unequal),
    calibration.calibrate: Entry(calibrated, unequal),
    calibrate.calibrate_online: Entry(calibrated_online),
    host_defaults.host_default: Entry(lambda x: host_defaults.host_default("vllm", 9, 4, x.deployment)),
    host_flags.host_flags: Entry(lambda x: host_flags.host_flags(controller.Controller("periodic"), x.deployment, 4, "sglang")),
    online_candidates.second_round: Entry(lambda x: online_candidates.second_round(16, {(1, 1): 0.5}, x.deployment)),
    trial.Trials.run: Entry(tried_out),
    capacity.capacity: Entry(sized, unequal),
    capacity.slot_options: Entry(lambda x: capacity.slot_options(x.deployment, 12)),
    protocol.timed: Entry(scored, unequal),
    protocol.score: Entry(scored, unequal),
    protocol.known: Entry(lambda x: protocol.known("gpu", x.deployment), unequal),
    protocol_runs.score_all: Entry(all_scored, unequal),
    per_step.per_step: Entry(stepped),
    predict.imbalance: Entry(timed),
    predict.map_time: Entry(timed),
    timed_maps.times_of: Entry(timed_on_both_windows),
    times.with_parts: Entry(timed_on_both_windows),
    predict.least_time: Entry(timed),
    replay.replay: Entry(replayed),
    contiguous.contiguous_map: Entry(lambda x: x.legal(contiguous.contiguous_map(x.deployment, 4))),
    kinds.plan_window: Entry(lambda x: x.legal(kinds.plan_window(controller.Controller("periodic"), WINDOWS, x.deployment))),
    kinds.full_plan: Entry(
        lambda x: x.legal(kinds.full_plan(controller.Controller("periodic"), WINDOWS, x.placement, x.deployment))
    ),
    step_makespans.step_makespans: Entry(served_stepwise),
    limits.certified_limit: Entry(limited),
    relabel.arrivals: Entry(lambda x: relabel.arrivals(x.placement, x.other, x.deployment)),
    user_program.UserProgram: Entry(program_file, unequal),
}
ENTRIES: dict[Callable[..., Any], Entry] = {**KERNEL, **FORMATS, **HEURISTICS, **SOLVERS, **JUDGING, **ROUTED, **DECODED}


def modules() -> Iterator[ModuleType]:
    """Yield every module of the three lower rooms and the analyses."""
    for room in (problem, heuristics, solvers):
        for found in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
            yield importlib.import_module(found.name)
    yield from ANALYSES


def takes_a_deployment(function: Callable[..., Any]) -> bool:
    """Return whether a parameter is one."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of the standard library's own
        return False
    return any(
        "Deployment" in str(parameter.annotation) and "Callable" not in str(parameter.annotation) for parameter in parameters
    )


def public_functions() -> Iterator[Callable[..., Any]]:
    """Yield public functions, classes that are no records, and methods of public classes that take a deployment."""
    for module in modules():
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.__name__ or not callable(value):
                continue
            if inspect.isclass(value):
                own = [getattr(value, method) for method in vars(value) if not method.startswith("_")]
                yield from (method for method in own if callable(method) and takes_a_deployment(method))
                if dataclasses.is_dataclass(value):
                    continue
            if takes_a_deployment(value):
                yield value


def test_every_public_function_that_takes_a_deployment_is_in_the_table() -> None:
    found = list(public_functions())
    assert len(found) > 80
    assert {f"{f.__module__}.{f.__qualname__}" for f in found} == {f"{f.__module__}.{f.__qualname__}" for f in ENTRIES}


@cache
def done(call: Callable[[Case], Any], name: str) -> None:
    """Make a call that may stand for several functions, once; one that fails does so for each of them."""
    call(Case(DEPLOYMENTS[name]))


@pytest.mark.parametrize("name", DEPLOYMENTS)
@pytest.mark.parametrize("function", ENTRIES, ids=lambda f: f"{f.__module__}.{f.__qualname__}")
def test_a_judged_result_or_one_error(function: Callable[..., Any], name: str) -> None:
    entry = ENTRIES[function]
    if entry.refuses(DEPLOYMENTS[name]):
        with pytest.raises((InputError, PlacementError)):
            entry.call(Case(DEPLOYMENTS[name]))
    else:
        done(entry.call, name)


@pytest.mark.parametrize("name", DEPLOYMENTS)
@pytest.mark.parametrize("method", heuristics.METHODS)
def test_every_heuristic_plans_legally_or_refuses(method: str, name: str) -> None:
    case = Case(DEPLOYMENTS[name])
    try:
        planned = registry.rebalance(case.loads, case.deployment, method)
    except InputError:
        assert not flat(case.deployment) or unequal(case.deployment) or method == "vllm-ascend"
        return
    try:
        case.legal(planned)
    except PlacementError as error:
        assert "duplicates are forbidden" in str(error)


@pytest.mark.parametrize("name", [name for name, deployment in DEPLOYMENTS.items() if irregular(deployment)])
@pytest.mark.parametrize("method", heuristics.METHODS)
def test_a_heuristic_called_by_itself_uses_no_dead_gpu(method: str, name: str) -> None:
    case = Case(DEPLOYMENTS[name])
    try:
        planned = heuristics.METHODS[method](case.loads, case.deployment)
    except InputError:
        return
    assert (planned.phy2log == registry.rebalance(case.loads, case.deployment, method).phy2log).all()


@pytest.mark.parametrize("name", DEPLOYMENTS)
@pytest.mark.parametrize("method", solvers.METHODS)
def test_every_engine_solves_or_refuses(method: str, name: str) -> None:
    case = Case(DEPLOYMENTS[name])
    try:
        solved(case, solvers.solve(case.loads, case.deployment, method, time_limit=2.0))
    except InputError as error:
        assert "slots" in str(error)
