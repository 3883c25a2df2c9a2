"""Adams' replica counts against the best counts, by brute force on small instances."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.random_instances import flat_instances
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import NUMBERS, finding
from eplb_gap.experiments.measuring.rows import Fields, Rows
from eplb_gap.experiments.studies.numbers import Number, percent
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.bounds.bounds import adams_counts
from eplb_gap.problem.metrics import optimality_gap
from eplb_gap.solvers.engines.oracle import best_map, best_map_for_counts

SUITE, INSTANCE = "findings", "tiny"
TINY_SHAPES = [(8, 12, 4), (9, 12, 3), (8, 12, 3), (10, 12, 4)]
TINY = 80


def counts_cell() -> Fields:
    """Compare, by brute force, the best map of Adams' counts with the best map of any counts."""
    excess, hot = [], []
    for instance in flat_instances(TINY, 300, TINY_SHAPES):
        counts = adams_counts(instance.loads, instance.num_slots, instance.max_count)
        best = instance.makespan(best_map(instance))
        excess.append(optimality_gap(best_map_for_counts(instance, counts), best))
        hot.append(max(instance.loads) * instance.num_gpus > instance.total)
    return {"kind": "finding", "hash": "", "parameters": {"instances": TINY}, "status": "done", "excess": excess, "hot": hot}


def cells() -> list[Cell]:
    """Return the one cell."""
    return [Cell(SUITE, INSTANCE, "oracle", counts_cell)]


def table(measured: Rows) -> str:
    """How often the best map needs other counts, and what Adams' cost there."""
    row = measured.one(suite=SUITE, instance=INSTANCE)
    body = []
    for kind, wanted in (("no expert above the mean GPU load", False), ("an expert above it", True)):
        excess = [value for value, hot in zip(row["excess"], row["hot"], strict=True) if hot is wanted]
        other = [value for value in excess if value > 0]
        loss = f"{100 * fmean(other):.2f} / {100 * max(other):.2f} %" if other else "-"
        body.append([kind, str(len(excess)), str(len(other)), loss])
    return (
        "## Adams' counts against the best counts\n\nRandom instances of 12 slots (3 or 4 on a GPU), by brute force.\n\n"
        + markdown(["loads", "instances", "best map needs other counts", "loss with Adams' counts there, mean / worst"], body)
    )


def _excess(of: Callable[[list[float]], str]) -> Number:
    return Number(((SUITE, INSTANCE, "oracle"),), lambda rows: of(rows[0]["excess"]))


STUDY = Study(
    SUITE,
    job="solvers",
    about="Adams' counts against the best",
    cells=cells,
    shapes=(finding({"excess": NUMBERS, "hot": "list of flag"}),),
    table=table,
    numbers={
        "tiny-instances": _excess(lambda excess: str(len(excess))),
        "tiny-other": _excess(lambda excess: str(sum(value > 0 for value in excess))),
        "tiny-worst": _excess(lambda excess: percent(max(excess), 0)),
    },
)
