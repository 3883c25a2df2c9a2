"""Placement without redundancy on the classical instances of identical-machine scheduling, k jobs on each machine.

With one replica of every expert a placement is a schedule of ``P | | Cmax`` with equally many jobs on all machines.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from eplb_gap import solvers
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.scheduling import CLASSES, processing_times
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import NUMBERS, SOLVED, finding
from eplb_gap.experiments.measuring.rows import Fields, Instance, Row, Rows
from eplb_gap.experiments.measuring.solve_cells import proof_fields
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.bounds.bounds import Bound
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.fractions import fractions
from eplb_gap.problem.instance import Instance as Layer
from eplb_gap.problem.metrics import optimality_gap
from eplb_gap.problem.proofs import described, described_trust
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engine import Incumbent, Limits, drive

SUITE = "pcmax"
SHAPES = tuple((n, m) for n in (10, 50, 100, 500, 1000) for m in (5, 10, 25) if n > m and n % m == 0)
"""Jobs and machines: all of the classical ones with equally many jobs, and more than one, on each machine."""
LARGEST = (100, 1000, 10_000)
TUNED: tuple[int, ...] = (0, 1, 2, 3, 4)
HELD_OUT: tuple[int, ...] = (310, 311, 312, 313, 314)
"""Seeds that the engine was tuned on, and seeds that were drawn when that was done."""
SECONDS, WARM_SECONDS = 10.0, 0.5
"""Time limit of one instance, and of another before the first, which compiles what is needed."""
LEAST = 0.95
OTHERS = {"milp": "HiGHS", "cpsat": "CP-SAT"}
SAMPLE = ("uniform", 1000, HELD_OUT[:1])
"""What the compact models are solved on: this class of every shape, one held-out seed."""


def instance(jobs: int, machines: int, kind: str, largest: int, seeds: Sequence[int], **_: object) -> Instance:
    """Return instances of one class, a layer for every seed."""
    loads = np.array([processing_times(kind, jobs, largest, seed) for seed in seeds])
    return loads, Deployment(jobs, jobs, machines)


def class_cell(jobs: int, machines: int, kind: str, largest: int, seeds: Sequence[int]) -> Fields:
    """Solve the instances of one class with the default engine, each on its own."""
    loads, deployment = instance(jobs, machines, kind, largest, seeds)
    solvers.solve(instance(jobs, machines, kind, largest, [1000])[0], deployment, time_limit=WARM_SECONDS)
    solved = [solvers.solve(layer[None], deployment, time_limit=SECONDS) for layer in loads]
    upper, bounds = [solution.upper[0] for solution in solved], [solution.bounds[0] for solution in solved]
    return _fields(loads, deployment, seeds, upper, bounds) | {"seconds": [solution.seconds for solution in solved]}


def model_cell(method: str, jobs: int, machines: int, kind: str, largest: int, seeds: Sequence[int]) -> Fields:
    """Solve instances by a compact model alone: from a map by LPT and exchanges, without the bounds of ``solve``."""
    loads, deployment = instance(jobs, machines, kind, largest, seeds)
    upper, bounds, seconds = [], [], []
    for layer in loads:
        incumbent = Incumbent(Layer.of_layer(layer, deployment))
        slots = greedy_map(incumbent.instance)
        incumbent.offer_map(slots)
        started = time.monotonic()
        drive(solvers.ENGINES[method].search, incumbent, Limits(started + SECONDS), lambda: None)
        upper.append(incumbent.instance.makespan(incumbent.slots or slots))
        bounds.append(incumbent.bound)
        seconds.append(time.monotonic() - started)
    return _fields(loads, deployment, seeds, upper, bounds) | {"seconds": seconds}


def _fields(
    loads: np.ndarray, deployment: Deployment, seeds: Sequence[int], upper: list[Fraction], bounds: list[Bound]
) -> Fields:
    lower = [bound.value for bound in bounds]
    return {
        "kind": "finding",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"time_limit": SECONDS, "workers": 1, "seeds": list(seeds)},
        "status": ["optimal" if up == low else "bounded" for up, low in zip(upper, lower, strict=True)],
        "upper": fractions(upper),
        "lower": fractions(lower),
        **proof_fields([described(bound) for bound in bounds]),
        "gap": [optimality_gap(up, low) for up, low in zip(upper, lower, strict=True)],
    }


def _named(jobs: int, machines: int, kind: str, largest: int) -> str:
    return f"{jobs}/{machines} {kind} {largest}"


def cells() -> list[Cell]:
    """Return the cells: every class by the default engine, one of every shape by the compact models."""
    found = []
    for jobs, machines in SHAPES:
        shape = {"jobs": jobs, "machines": machines}
        for kind, largest in itertools.product(CLASSES, LARGEST):
            given = shape | {"kind": kind, "largest": largest, "seeds": TUNED + HELD_OUT}
            found.append(Cell(SUITE, _named(jobs, machines, kind, largest), "auto", class_cell, given))
        kind, largest, seeds = SAMPLE
        for method in OTHERS:
            given = shape | {"method": method, "kind": kind, "largest": largest, "seeds": seeds}
            found.append(Cell(SUITE, _named(jobs, machines, kind, largest), method, model_cell, given))
    return found


def proven(row: Row, seeds: Sequence[int]) -> dict[int, bool]:
    """Return by seed whether a placement is optimal by a proof that the kernel recomputes."""
    solved = zip(row["parameters"]["seeds"], row.upper, row.lower, row["proof"], strict=True)
    return {
        seed: upper == lower and described_trust(proof) == "recomputed" for seed, upper, lower, proof in solved if seed in seeds
    }


def _share(measured: Rows, seeds: Sequence[int]) -> float:
    found = [closed for row in measured.where(suite=SUITE, method="auto") for closed in proven(row, seeds).values()]
    return sum(found) / len(found)


def table(measured: Rows) -> str:
    """Proven optima by shape, on seeds that were tuned on and on others, beside the compact models; the open instances."""
    body, left = [], []
    for jobs, machines in SHAPES:
        names = [_named(jobs, machines, kind, largest) for kind in CLASSES for largest in LARGEST]
        by_class = {name: measured.one(suite=SUITE, instance=name, method="auto") for name in names}
        seconds = [value for row in by_class.values() for value in row["seconds"]]
        cells = []
        for seeds in (TUNED, HELD_OUT):
            found = [(name, seed, closed) for name, row in by_class.items() for seed, closed in proven(row, seeds).items()]
            cells.append(f"{sum(closed for _, _, closed in found)}/{len(found)}")
            left += [f"{name} seed {seed}" for name, seed, closed in found if not closed]
        kind, largest, _ = SAMPLE
        for method in OTHERS:
            row = measured.one(suite=SUITE, instance=_named(jobs, machines, kind, largest), method=method)
            gap = row["gap"][0]
            cells.append("yes" if gap == 0 else f"{100 * gap:.2g} % left")
        body.append([f"{jobs}/{machines}", *cells, f"{np.median(seconds):.2f} / {max(seconds):.1f}"])
    by_others = " and ".join(
        f"{sum(row['status'] == ['optimal'] for row in measured.where(suite=SUITE, method=method))} of {len(SHAPES)}"
        for method in OTHERS
    )
    tuned, held = (_share(measured, seeds) for seeds in (TUNED, HELD_OUT))
    met = "met" if min(tuned, held) >= LEAST else "not met"
    headings = ["jobs/machines", "proven, tuned seeds", "proven, held-out seeds"]
    headings += [f"{name} proves its sample" for name in OTHERS.values()] + ["seconds, median / worst"]
    return (
        "## No redundancy: classical instances of scheduling on identical machines\n\nU[1, b] and the nonuniform class (98 % "
        "U[.9(b-1), b], 2 % U[1, .2(b-1)]), b = 100, 1000, 10000, equally many jobs on every machine; "
        f"{SECONDS:g} s each, one worker. Seeds {TUNED[0]}-{TUNED[-1]} were tuned on, {HELD_OUT[0]}-{HELD_OUT[-1]} were not. "
        f"Optimal by a proof that the kernel recomputes: {100 * tuned:.1f} % and {100 * held:.1f} % (asked: {100 * LEAST:.0f} %, "
        f"{met}). HiGHS and CP-SAT, whose word is taken, have the same time for one held-out instance of every shape, "
        f"U[1, {SAMPLE[1]}], an LPT map to start from and none of our bounds; they prove {by_others}.\n\n"
        f"{markdown(headings, body)}\n\nOpen: {'; '.join(left) or 'none'}.\n"
    )


STUDY = Study(
    SUITE,
    job="solvers",
    about="placement without redundancy on classical instances of identical-machine scheduling",
    cells=cells,
    shapes=(finding(SOLVED | {"seconds": NUMBERS}, *SOLVED, "status"),),
    instance=instance,
    table=table,
    timed=True,
)
