"""Everything that is drawn from the published rows: files, the README's tables and figures, with the suites each draws from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from eplb_gap.experiments.exhibits import paper_numbers, paper_tables, tables, verifiable
from eplb_gap.experiments.exhibits.figures import (
    before_after,
    decomposition,
    gap_distribution,
    gap_runtime,
    migration_front,
    pareto,
    performance_profile,
    redundancy,
    regime_gaps,
    scaling,
    window_balance,
)
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.experiments.studies import (
    head_to_head,
    heuristic_bench,
    history_serving,
    regime_bench,
    serving_bench,
    solver_bench,
    split_serving,
)


@dataclass(frozen=True)
class Text:
    """A text drawn from rows.

    Parameters
    ----------
    module : module
        Its source is named as the script.
    suites : tuple of str
        Rows of no other suite are needed.
    render : callable
        From rows to the text.
    """

    module: ModuleType
    suites: tuple[str, ...]
    render: Callable[[list[Row]], str]


FIGURES: tuple[ModuleType, ...] = (
    gap_distribution,
    window_balance,
    gap_runtime,
    before_after,
    performance_profile,
    pareto,
    scaling,
    decomposition,
    migration_front,
    regime_gaps,
    redundancy,
)
"""Modules with ``SUITES`` and ``draw(rows, folder)``; the files have the module's name."""

TEXTS = {
    "results/tables.md": Text(tables, tables.SUITES, tables.tables),
    "results/solver_tables.md": Text(solver_bench, solver_bench.SUITES, solver_bench.tables),
    "results/heuristic_tables.md": Text(heuristic_bench, heuristic_bench.SUITES, heuristic_bench.tables),
    "results/serving_tables.md": Text(serving_bench, serving_bench.SUITES, serving_bench.tables),
    "results/regime_tables.md": Text(regime_bench, regime_bench.SUITES, regime_bench.tables),
    "paper/numbers.json": Text(paper_numbers, paper_numbers.SUITES, paper_numbers.render),
    **{
        f"paper/tables/{name}.csv": Text(paper_tables, suites, lambda rows, build=build: paper_tables.render(build(rows)))
        for name, (suites, build) in paper_tables.TABLES.items()
    },
}
"""Files by their path in the project."""

README_BLOCKS = {
    "gap table": Text(tables, ("gap",), tables.readme_table),
    "regimes": Text(regime_bench, regime_bench.SUITES, regime_bench.readme),
    "loss table": Text(tables, ("protocol",), tables.loss_rows),
    "head to head": Text(head_to_head, ("heuristics", head_to_head.SECONDS_SUITE), head_to_head.readme_table),
    "serving advice": Text(serving_bench, (history_serving.SUITE, split_serving.SUITE), serving_bench.advice),
    "verifiable": Text(verifiable, verifiable.SUITES, verifiable.table),
}
"""Parts of the README between ``<!-- NAME -->`` and ``<!-- /NAME -->``."""


def chosen(published: list[Row], suites: tuple[str, ...]) -> list[Row]:
    """Return the rows of some suites."""
    return [row for row in published if row["suite"] in suites]


def script(module: ModuleType) -> str:
    """Return the path of a module's source in the project."""
    return module.__name__.removeprefix("eplb_gap.").replace(".", "/") + ".py"
