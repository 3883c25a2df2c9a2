"""Jobs: what one command measures; together they are the whole grid of the project."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from eplb_gap.experiments.loads import traces
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.published import reproduce
from eplb_gap.experiments.studies import gaps as suites
from eplb_gap.experiments.studies import head_to_head, heuristic_bench, regime_bench, serving_bench, solver_bench
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS

Key = tuple[Any, ...]

BENCHES: dict[str, ModuleType] = {
    "solvers": solver_bench,
    "heuristics": heuristic_bench,
    "serving": serving_bench,
    "regimes": regime_bench,
}
"""Modules with ``cells()``, ``run(folder, workers, console, scheduler)`` and ``tables(rows)``, by what ``bench`` calls them."""


def cells() -> dict[str, list[Cell]]:
    """Return the cells of every job: the grid."""
    main = suites.protocol_cells() + suites.gap_cells()
    return {"reproduce": main, **{f"bench {name}": bench.cells() for name, bench in BENCHES.items()}}


def keys() -> dict[str, list[Key]]:
    """Return the keys of all rows that every job makes: those of its cells and of times that one invocation measures."""
    found = {job: [cell.key for cell in of_job] for job, of_job in cells().items()}
    found["reproduce"] += [("runtime", reproduce.RUNTIME_INSTANCE, method, 0) for method in SEED_PROGRAMS]
    found["bench heuristics"] += [
        (head_to_head.SECONDS_SUITE, policy, method, 0)
        for policy in traces.POLICIES
        for method in head_to_head.applicable(policy)
    ]
    return found
