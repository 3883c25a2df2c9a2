"""A recognised baseline beside the engines: price and branch over patterns, on 40 instances (``eplb-gap bench solvers``)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from fractions import Fraction

import numpy as np

from eplb_gap import solvers
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.synthetic import family_loads
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.proven import closed
from eplb_gap.experiments.measuring.row_schema import NESTED, solver
from eplb_gap.experiments.measuring.rows import Fields, Instance, Row, Rows
from eplb_gap.experiments.measuring.solve_cells import deployment_fields, proof_fields, solver_cell
from eplb_gap.experiments.studies.method_profile import gap_at
from eplb_gap.experiments.studies.numbers import Number
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem import instance as flat
from eplb_gap.problem.bounds.bounds import best_joint_bound
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.digest import array_sha256
from eplb_gap.problem.fractions import fractions
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.proofs import described
from eplb_gap.problem.validation import verify
from eplb_gap.solvers import Progress
from eplb_gap.solvers.compact.price_and_branch import search
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engine import Incumbent, Limits, drive

SUITE = "baseline_profile"
SHAPES = (
    (9, 12, 4),
    (16, 24, 8),
    (24, 32, 8),
    (32, 48, 16),
    (32, 64, 32),
    (48, 64, 8),
    (64, 96, 48),
    (64, 128, 32),
    (128, 192, 64),
    (192, 256, 64),
)
FAMILIES = ("ln1.0", "zipf.8")
SEEDS = (7100, 7101)
METHODS = ("auto", "milp", "cpsat", "price-and-branch")
SECONDS = 3.0
MOMENTS = (1.0, SECONDS)
GAPS = (1e-2, 1e-3, 1e-4)
TOTAL = 10**5
WARM_SECONDS = 0.2


def _named(shape: tuple[int, int, int]) -> str:
    return "/".join(map(str, shape))


def instance(shape: tuple[int, int, int], family: str, seed: int, **_: object) -> Instance:
    """Return an instance of a shape, a family of loads and a seed."""
    deployment = Deployment(*shape)
    return family_loads(family, deployment.num_experts, TOTAL, seed)[None], deployment


def profile_cell(shape: tuple[int, int, int], family: str, seed: int, method: str) -> Fields:
    """Solve one instance to the end or for ``SECONDS``; keep the gap at every improvement."""
    loads, deployment = instance(shape, family, seed)
    other = family_loads(family, deployment.num_experts, TOTAL, 1000)[None]
    steps: list[tuple[float, float]] = []
    if method == "price-and-branch":
        baseline_cell(other, deployment, WARM_SECONDS, steps)
        steps.clear()
        row = baseline_cell(loads, deployment, SECONDS, steps)
    else:
        solvers.solve(other, deployment, method, 0.0, WARM_SECONDS)

        def follow(progress: Progress) -> None:
            if not steps or progress.gap < steps[-1][1]:
                steps.append((progress.elapsed, progress.gap))

        row = solver_cell(loads, deployment, method, 0.0, SECONDS, progress=follow)
    return {**row, "family": family, "trajectory": [*steps, (row["wall_seconds"], row["gap"][0])]}


def baseline_cell(loads: np.ndarray, deployment: Deployment, seconds: float, steps: list[tuple[float, float]]) -> Fields:
    """Solve by price and branch from the first map and closed-form bound that every method without a first pass gets.

    Parameters
    ----------
    loads : ndarray
        int64 [1, experts].
    deployment : Deployment
    seconds : float
        Time limit.
    steps : list
        Seconds and gap at every improvement are appended.
    """
    started, cpu = time.monotonic(), time.process_time()
    flat_instance = flat.Instance.of_layer(loads[0], deployment)
    bound = best_joint_bound(flat_instance)
    incumbent = Incumbent(flat_instance, bound=bound)
    incumbent.offer_map(greedy_map(flat_instance, float(bound.value)))
    steps.append((time.monotonic() - started, incumbent.gap))
    limits = Limits(started + seconds)
    drive(search, incumbent, limits, lambda: steps.append((time.monotonic() - started, incumbent.gap)))
    placement = Placement(np.array([incumbent.slots]), deployment.num_experts)
    upper = verify(placement, loads, deployment)
    return {
        **deployment_fields(deployment, loads),
        "kind": "solver",
        "wall_seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - cpu,
        "parameters": {"target_gap": 0.0, "time_limit": seconds, "workers": 1},
        "status": ["optimal" if incumbent.proven else "bounded"],
        "upper": fractions(upper),
        "lower": fractions([incumbent.bound.value]),
        **proof_fields([described(incumbent.bound)]),
        "gap": [incumbent.gap],
        "placement": array_sha256(placement.phy2log)[:16],
    }


def cells() -> list[Cell]:
    """Return the cells: every method on every instance."""
    return [
        Cell(
            SUITE,
            f"{_named(shape)} {family}",
            method,
            profile_cell,
            {"shape": shape, "family": family, "seed": seed, "method": method},
            seed,
        )
        for shape in SHAPES
        for family in FAMILIES
        for seed in SEEDS
        for method in METHODS
    ]


def share_within(rows: Rows, moment: float, gap: float) -> str:
    """Return on how many instances a method's own map is within a gap of its own bound after so many seconds."""
    return f"{sum(gap_at(row, moment) <= gap for row in rows)} of {len(rows)}"


def bounds_within(measured: Rows, method: str, gap: float) -> str:
    """Return on how many instances a method's bound is within a gap of the best map that any method has found in the end.

    It is about bounds alone: methods start from different maps.
    """
    at = measured.where(suite=SUITE, method=method)
    best = {_key(row): min(one.upper[0] for one in measured.where(suite=SUITE) if _key(one) == _key(row)) for row in at}
    return f"{sum(best[_key(row)] <= row.lower[0] * (1 + Fraction(gap)) for row in at)} of {len(at)}"


def _key(row: Row) -> tuple[str, int]:
    return row["instance"], row["seed"]


def table(measured: Rows) -> str:
    """Instances within a gap after a moment, bounds against the best map known, and proofs, method by method."""
    body = []
    for method in METHODS:
        at = measured.where(suite=SUITE, method=method)
        if at:
            shares = [share_within(at, moment, gap) for moment in MOMENTS for gap in GAPS]
            body.append([f"`{method}`", *shares, bounds_within(measured, method, 1e-3), str(closed(at))])
    return (
        "## A baseline of operations research beside the engines\n\n"
        f"{len(SHAPES) * len(FAMILIES) * len(SEEDS)} synthetic instances of {SHAPES[0][1]} to {SHAPES[-1][1]} slots, two to "
        "eight per GPU, lognormal (sigma 1) and Zipf (.8) loads, two seeds each, chosen before any was solved; one thread, "
        f"one solve at a time, {SECONDS:.0f} s, on a machine that others used. `price-and-branch`: the pattern model of the "
        "literature by column generation, then its restricted master as a MILP; Python over HiGHS, as a textbook has it: a "
        "tuned code would be faster. Gap: of a method's own map to its own bound. `auto`, `milp` and `cpsat` start from the "
        "planners' maps, `price-and-branch` from a greedy one with exchanges; all from the closed-form bounds. Bounds of "
        "all but `auto` are claims, unless a closed form gives them; the last column counts claims apart.\n\n"
        + markdown(
            [
                "method",
                *(f"{100 * gap:g} %, {moment:.0f} s" for moment in MOMENTS for gap in GAPS),
                "bound to best map: 0.1 %",
                "proven optimal",
            ],
            body,
        )
    )


def _of(method: str, number: Callable[[Rows], str]) -> Number:
    return Number(((SUITE, "*", method),), number)


def _proven(rows: Iterable[Row]) -> str:
    counted = closed(rows)
    return f"{counted.optimal} of {counted.layers}"


def _met(rows: Iterable[Row]) -> str:
    return str(sum(row["status"] == ["optimal"] for row in rows))


STUDY = Study(
    SUITE,
    job="solvers",
    about="`auto`, compact models and price and branch over patterns on 40 instances, with the gap at every improvement",
    cells=cells,
    shapes=(solver(family="text", trajectory=NESTED),),
    instance=instance,
    table=table,
    figures=("baseline_profile",),
    numbers={
        "baseline-auto": _of("auto", _proven),
        "baseline-auto-thousandth": _of("auto", lambda rows: share_within(rows, SECONDS, 1e-3)),
        "baseline-branch-met": _of("price-and-branch", _met),
        "baseline-branch-thousandth": _of("price-and-branch", lambda rows: share_within(rows, SECONDS, 1e-3)),
        "baseline-branch-bounds": Number(((SUITE, "*", "*"),), lambda rows: bounds_within(rows, "price-and-branch", 1e-3)),
        "baseline-auto-bounds": Number(((SUITE, "*", "*"),), lambda rows: bounds_within(rows, "auto", 1e-3)),
        "baseline-milp-thousandth": _of("milp", lambda rows: share_within(rows, SECONDS, 1e-3)),
        "baseline-cpsat-thousandth": _of("cpsat", lambda rows: share_within(rows, SECONDS, 1e-3)),
    },
    timed=True,
)
