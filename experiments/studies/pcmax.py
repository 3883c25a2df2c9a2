"""Placement without redundancy on the classical instances of identical-machine scheduling, k jobs on each machine.

With one replica of every expert a placement is a schedule of ``P | | Cmax`` with equally many jobs on all machines.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from eplb_gap import solvers
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.scheduling import CLASSES, processing_times
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import NUMBERS, SOLVED, finding
from eplb_gap.experiments.measuring.rows import Fields, Instance, Row, Rows
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.fractions import fractions
from eplb_gap.problem.proofs import described_trust

SUITE = "pcmax"
SHAPES = tuple((n, m) for n in (10, 50, 100, 500, 1000) for m in (5, 10, 25) if n > m and n % m == 0)
"""Jobs and machines: all of the classical ones with equally many jobs, and more than one, on each machine."""
LARGEST = (100, 1000, 10_000)
TUNED, HELD_OUT = (0, 1, 2, 3, 4), (310, 311, 312, 313, 314)
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


def class_cell(method: str, jobs: int, machines: int, kind: str, largest: int, seeds: Sequence[int]) -> Fields:
    """Solve the instances of one class, each on its own."""
    loads, deployment = instance(jobs, machines, kind, largest, seeds)
    solvers.solve(instance(jobs, machines, kind, largest, [1000])[0], deployment, method, time_limit=WARM_SECONDS)
    solved, cpu = [], []
    for layer in loads:
        started = time.process_time()
        solved.append(solvers.solve(layer[None], deployment, method, time_limit=SECONDS))
        cpu.append(time.process_time() - started)
    return {
        "kind": "finding",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"time_limit": SECONDS, "workers": 1, "seeds": list(seeds)},
        "status": [solution.status[0] for solution in solved],
        "upper": fractions(solution.upper[0] for solution in solved),
        "lower": fractions(solution.lower[0] for solution in solved),
        "proof": [solution.proof[0] for solution in solved],
        "gap": [solution.gap[0] for solution in solved],
        "seconds": [solution.seconds for solution in solved],
        "seconds_cpu": cpu,
    }


def _named(jobs: int, machines: int, kind: str, largest: int) -> str:
    return f"{jobs}/{machines} {kind} {largest}"


def cells() -> list[Cell]:
    """Return the cells: every class by the default engine, one of every shape by the compact models."""
    found = []
    for jobs, machines in SHAPES:
        asked = [("auto", kind, largest, TUNED + HELD_OUT) for kind in CLASSES for largest in LARGEST]
        for method, kind, largest, seeds in [*asked, *((method, *SAMPLE) for method in OTHERS)]:
            given = {"jobs": jobs, "machines": machines, "kind": kind, "largest": largest, "seeds": seeds}
            found.append(Cell(SUITE, _named(jobs, machines, kind, largest), method, class_cell, {"method": method, **given}))
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
        kind, largest, seeds = SAMPLE
        for method in OTHERS:
            row = measured.one(suite=SUITE, instance=_named(jobs, machines, kind, largest), method=method)
            cells.append("yes" if row["status"] == ["optimal"] else f"{100 * row['gap'][0]:.3g} % left")
        body.append([f"{jobs}/{machines}", *cells, f"{np.median(seconds):.2f} / {max(seconds):.1f}"])
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
        f"U[1, 1000].\n\n{markdown(headings, body)}\n\nOpen: {'; '.join(left) or 'none'}.\n"
    )


STUDY = Study(
    SUITE,
    job="solvers",
    about="placement without redundancy on classical instances of identical-machine scheduling",
    cells=cells,
    shapes=(finding(SOLVED | {"seconds": NUMBERS, "seconds_cpu": NUMBERS}, *SOLVED, "status"),),
    instance=instance,
    table=table,
    timed=True,
)
