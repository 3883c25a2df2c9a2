"""All methods over instances from 12 to 512 slots: time to proof, gap after 1, 10 and 60 seconds (``eplb-gap bench solvers``)."""

from __future__ import annotations

import statistics

from eplb_gap import solvers
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.synthetic import family_loads
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.proven import closed
from eplb_gap.experiments.measuring.row_schema import NESTED, solver
from eplb_gap.experiments.measuring.rows import Fields, Instance, Row, Rows
from eplb_gap.experiments.measuring.solve_cells import solver_cell
from eplb_gap.experiments.studies.numbers import Number, percent
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.deployment import Deployment
from eplb_gap.solvers import Progress

SUITE = "profile"
SHAPES = ((9, 12, 4), (16, 24, 8), (32, 48, 16), (64, 96, 48), (128, 192, 64), (256, 288, 32), (384, 512, 64))
FAMILIES = ("ln1.0", "zipf.8")
"""One instance of each per shape: the two seeds of a cell."""
METHODS = ("auto", "milp", "cpsat", "milp-cbc")
LARGEST_FOR_CBC = 96
"""Slots above which CBC spends the whole minute on its first relaxation."""
SECONDS = 60.0
MOMENTS = (1.0, 10.0, 60.0)
WARM_SECONDS = 0.5


def _named(shape: tuple[int, int, int]) -> str:
    return "/".join(map(str, shape))


def instance(shape: tuple[int, int, int], number: int, **_: object) -> Instance:
    """Return an instance of a shape: the first or the second family."""
    deployment = Deployment(*shape)
    return family_loads(FAMILIES[number], deployment.num_experts, _total(deployment), number)[None], deployment


def _total(deployment: Deployment) -> int:
    return 10**5 if deployment.num_slots <= 48 else 10**6


def profile_cell(shape: tuple[int, int, int], number: int, method: str) -> Fields:
    """Solve one instance to the end or for ``SECONDS``; keep the gap at every improvement."""
    loads, deployment = instance(shape, number)
    other = family_loads(FAMILIES[number], deployment.num_experts, _total(deployment), 1000)
    solvers.solve(other[None], deployment, method, 0.0, WARM_SECONDS)
    steps: list[tuple[float, float]] = []

    def follow(progress: Progress) -> None:
        if not steps or progress.gap < steps[-1][1]:
            steps.append((progress.elapsed, progress.gap))

    row = solver_cell(loads, deployment, method, 0.0, SECONDS, progress=follow)
    return {**row, "family": FAMILIES[number], "trajectory": [*steps, (row["wall_seconds"], row["gap"][0])]}


def cells() -> list[Cell]:
    """Return the cells of the profile."""
    return [
        Cell(
            SUITE,
            _named(shape),
            method,
            profile_cell,
            {"shape": shape, "number": number, "method": method},
            number,
        )
        for shape in SHAPES
        for number in range(len(FAMILIES))
        for method in METHODS
        if method != "milp-cbc" or shape[1] <= LARGEST_FOR_CBC
    ]


def gap_at(row: Row, moment: float) -> float:
    """Return the gap that a solve had proven after so many seconds; infinite before its first map."""
    return min((gap for elapsed, gap in row["trajectory"] if elapsed <= moment * 1.1), default=float("inf"))


def seconds_to_end(row: Row) -> float:
    """Return the seconds after which upper equalled lower, be that bound a claim or not; infinite where they never did."""
    return row["wall_seconds"] if row["status"] == ["optimal"] else float("inf")


def table(measured: Rows) -> str:
    """Gaps at the three moments and proofs, method by method and size by size."""
    body = []
    for shape in SHAPES:
        name = _named(shape)
        for method in METHODS:
            at = measured.where(suite=SUITE, instance=name, method=method)
            if not at:
                continue
            ends = [seconds_to_end(row) for row in at]
            body.append(
                [
                    name,
                    f"`{method}`",
                    *(_percent(statistics.mean(gap_at(row, moment) for row in at)) for moment in MOMENTS),
                    str(closed(at)),
                    ", ".join("-" if seconds == float("inf") else f"{seconds:.2f} s" for seconds in ends),
                ]
            )
    return (
        "## Methods side by side\n\n"
        f"Lognormal (sigma 1) and Zipf (.8) loads, one instance of each, one thread, two solves at a time, {SECONDS:.0f} s. "
        "Gap: of the method's own map to its own bound, mean of the two. The compact models (`milp`, `milp-cbc`, `cpsat`) start "
        "from the same first map and closed-form bounds as `auto`; their bounds are claims, unless a closed form gives them.\n\n"
        + markdown(
            [
                "experts/slots/GPUs",
                "method",
                *(f"gap after {moment:.0f} s" for moment in MOMENTS),
                "proven optimal",
                "seconds until they met",
            ],
            body,
        )
    )


def _percent(gap: float) -> str:
    return "-" if gap == float("inf") else f"{100 * gap:.4f} %"


def _optimal(method: str) -> Number:
    """How many instances a method proves optimal; claims do not count."""
    return Number(((SUITE, "*", method),), lambda rows: f"{closed(rows).optimal} of {closed(rows).layers}")


def _largest_ended(rows: Rows) -> str:
    return str(max(row["deployment"]["num_slots"] for row in rows if row["status"] == ["optimal"]))


STUDY = Study(
    SUITE,
    job="solvers",
    about="all methods on instances of 12 to 512 slots, with the gap at every improvement (`trajectory`: seconds, gap)",
    cells=cells,
    shapes=(solver(family="text", trajectory=NESTED),),
    instance=instance,
    table=table,
    figures=("performance_profile",),
    numbers={
        **{f"profile-{method}": _optimal(method) for method in ("auto", "milp", "cpsat")},
        "profile-largest": Number(((SUITE, "*", "milp*"), (SUITE, "*", "cpsat")), _largest_ended),
        "profile-three": Number(
            ((SUITE, "128/192/64", "auto"),), lambda rows: percent(statistics.mean(row["gap"][0] for row in rows))
        ),
    },
)
