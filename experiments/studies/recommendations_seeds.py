"""The five recommendations on the search's best program, and all of them together, over traces of eight seeds."""

from __future__ import annotations

import itertools
from dataclasses import replace
from statistics import fmean

import numpy as np

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.synthetic import calibrated_trace
from eplb_gap.experiments.loads.traces import FLAGSHIP
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, Shape
from eplb_gap.experiments.measuring.rows import Fields, Instance, Rows
from eplb_gap.experiments.measuring.statistics import Interval, mean_interval
from eplb_gap.experiments.studies.numbers import Number, interval_text
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.config import PipelineConfig
from eplb_gap.heuristics.programs.recommendations import RECOMMENDATIONS
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS
from eplb_gap.problem.metrics import balancedness_gpu
from eplb_gap.problem.validation import verify

SUITE = "recommendations_seeds"
SEEDS = tuple(range(9201, 9209))
"""Of calibrated traces that nothing else has seen."""
PAIRS = 5
"""Pairs of windows of a trace, as many as the search scored."""
BEST, HARD, PLAIN, EPSILON = "moe_eplb_modular_refine", "diversity_aware_gpu_packing", "initial_program", "diversity-epsilon"


def programs() -> dict[str, PipelineConfig]:
    """Return the programs that are compared: recommendations on the best one by number, and the two bases of the third."""
    best = SEED_PROGRAMS[BEST]
    one, three, five = (RECOMMENDATIONS[name].config for name in ("two-by-two-swap", EPSILON, "stage-specific-swaps"))
    tie_breaker = replace(best.replicas, packer=three.replicas.packer, epsilon=three.replicas.epsilon)
    together = replace(
        one,
        replicas=replace(
            one.replicas, packer=three.replicas.packer, epsilon=three.replicas.epsilon, swap_steps=five.replicas.swap_steps
        ),
        replication="hybrid_on_extras",
        fix_ups=1,
    )
    return {
        BEST: best,
        "1, two by two swaps": one,
        "2, fix-up": replace(best, fix_ups=1),
        "3, tie-breaker": replace(best, replicas=tie_breaker),
        "4, hybrid divisor": replace(best, replication="hybrid_on_extras"),
        "5, stage-specific swaps": replace(best, replicas=replace(best.replicas, swap_steps=five.replicas.swap_steps)),
        "all together": together,
        EPSILON: three,
        HARD: SEED_PROGRAMS[HARD],
        PLAIN: SEED_PROGRAMS[PLAIN],
    }


def instance(seed: int) -> Instance:
    """Return the windows of a trace on the flagship."""
    return calibrated_trace(seed).loads[: PAIRS + 1], FLAGSHIP


def seed_cell(seed: int) -> Fields:
    """Plan the first windows of a trace with every program and serve the next."""
    import torch

    from eplb_gap.heuristics.programs.pipeline import run

    torch.set_num_threads(1)
    loads, deployment = instance(seed)
    planning: dict[str, list[float]] = {}
    serving: dict[str, list[float]] = {}
    for name, config in programs().items():
        planning[name], serving[name] = [], []
        for window, following in itertools.pairwise(loads):
            placement = run(config, torch.from_numpy(window.astype(np.float32)), deployment)
            verify(placement, window, deployment)
            planning[name].append(balancedness_gpu(placement, window, deployment.num_gpus))
            serving[name].append(balancedness_gpu(placement, following, deployment.num_gpus))
    return {
        "kind": "heuristic",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"pairs": PAIRS},
        "status": "legal",
        "planning": planning,
        "serving": serving,
    }


def cells() -> list[Cell]:
    """Return a cell per trace."""
    return [Cell(SUITE, "calibrated", "recommendations", seed_cell, {"seed": seed}, seed) for seed in SEEDS]


def gain(measured: Rows, side: str, program: str, base: str) -> Interval:
    """Return what a program gains over a base in points of GPU balancedness; the unit is the trace."""
    found = measured.where(suite=SUITE)
    return mean_interval([100 * (fmean(row[side][program]) - fmean(row[side][base])) for row in found])


COMPARED = (
    *((name, BEST) for name in list(programs())[1:7]),
    (EPSILON, PLAIN),
    (EPSILON, HARD),
)
SAME = 1e-9
"""Points of balancedness by which sums of the same makespans in another order may differ."""


def findings(measured: Rows) -> list[list[tuple[str, str]]]:
    """Return the comparisons of a program with a base, together those that agree in every pair of windows of every trace.

    They are one finding, however many programs lead to it.
    """
    found: dict[tuple[float, ...], list[tuple[str, str]]] = {}
    for program, base in COMPARED:
        values = _differences(measured, program, base)
        same = next((seen for seen in found if np.abs(np.subtract(seen, values)).max() <= SAME), values)
        found.setdefault(same, []).append((program, base))
    return list(found.values())


def _differences(measured: Rows, program: str, base: str) -> tuple[float, ...]:
    """Return what a program gains over a base in points, where planned and on the next window, of every trace and pair."""
    return tuple(
        100 * (ours - other)
        for row in measured.where(suite=SUITE)
        for side in ("planning", "serving")
        for ours, other in zip(row[side][program], row[side][base], strict=True)
    )


def table(measured: Rows) -> str:
    """Return gains where planned and on the next window as Markdown, a line for every finding."""
    body = [
        [
            "; ".join(f"{program} over `{base}`" for program, base in together),
            *(interval_text(gain(measured, side, *together[0]), 2, sign=True) for side in ("planning", "serving")),
        ]
        for together in findings(measured)
    ]
    return (
        f"## The recommendations over {len(SEEDS)} traces\n\nCalibrated (synthetic) traces of seeds {SEEDS[0]} to {SEEDS[-1]}, "
        f"which nothing else has seen, the first {PAIRS} pairs of windows of each, hierarchical: gains in points of GPU "
        "balancedness over the search's best program (generation 7), alone and all together, and of the tie-breaker over both "
        "rules that it lies between; 95 % intervals over traces. Comparisons that agree in every pair of windows of every trace "
        "are one finding and share a line. All five together are the tie-breaker alone: the fix-up takes back what the hybrid "
        "divisor changes in the counts, and no swap of two by two is accepted.\n\n"
        + markdown(["recommendation over base", "planned on", "next window"], body)
        + "\n"
    )


def _gain(program: str, base: str) -> Number:
    return Number(((SUITE, "*", "*"),), lambda found: interval_text(gain(found, "serving", program, base), 2, sign=True))


STUDY = Study(
    SUITE,
    job="heuristics",
    about="the five recommendations on the search's best program over calibrated traces of eight seeds",
    cells=cells,
    shapes=(Shape("heuristic", CELL | {"planning": "object of list of number", "serving": "object of list of number"}),),
    instance=instance,
    table=table,
    numbers={
        "recommended-together": _gain("all together", BEST),
        "recommended-hard": _gain(EPSILON, HARD),
        "recommended-plain": _gain(EPSILON, PLAIN),
    },
)
