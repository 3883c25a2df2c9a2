"""Everything that is drawn from the published rows: files, the pages' tables, figures, with the suites each draws from."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.exhibits import best_known, figures, paper_numbers, paper_tables, search_claims
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies import catalogue, verifiable
from eplb_gap.experiments.studies.catalogue import STUDIES
from eplb_gap.experiments.studies.jobs import JOBS


class Drawing(Protocol):
    """What a module that draws a figure has."""

    SUITES: tuple[str, ...]

    def draw(self, rows: Rows, folder: Path) -> list[Path]:
        """Draw from rows into a folder and return the files."""


@dataclass(frozen=True)
class Figure:
    """A figure: the files have its module's name.

    Parameters
    ----------
    name : str
        Module of :mod:`eplb_gap.experiments.exhibits.figures`.
    job : str
        Key of :data:`eplb_gap.experiments.studies.jobs.JOBS`: whose rows it is drawn from.
    """

    name: str
    job: str

    @property
    def _module(self) -> Drawing:
        return cast("Drawing", importlib.import_module(f"{figures.__name__}.{self.name}"))

    @property
    def suites(self) -> tuple[str, ...]:
        """Rows of no other suite are needed."""
        return self._module.SUITES

    @property
    def script(self) -> str:
        """Path of its source in the project."""
        return f"experiments/exhibits/figures/{self.name}.py"

    def draw(self, rows: Rows, folder: Path) -> list[Path]:
        """Draw it into a folder and return the files."""
        return self._module.draw(rows, folder)


@dataclass(frozen=True)
class Text:
    """A text drawn from rows.

    Parameters
    ----------
    script : str
        Path of what renders it.
    suites : tuple of str
        Rows of no other suite are needed.
    render : callable
        From rows to the text.
    """

    script: str
    suites: tuple[str, ...]
    render: Callable[[Rows], str]


def _solver_tables(rows: Rows) -> str:
    """Return the tables of the exact engines and, behind them, what is drawn from the rows of all suites."""
    return f"{JOBS['solvers'].tables(rows)}\n{verifiable.section(rows)}\n\n{best_known.table(rows)}\n"


def _heuristic_tables(rows: Rows) -> str:
    """Return the tables of heuristics and, behind them, what the published search said and what rows say."""
    return f"{JOBS['heuristics'].tables(rows)}\n{search_claims.table(rows)}"


FIGURES = tuple(Figure(name, study.job) for study in STUDIES.values() for name in study.figures)
TEXTS = {
    **{f"results/{job.text}": Text("experiments/studies/jobs.py", job.suites, job.tables) for job in JOBS.values()},
    f"results/{JOBS['solvers'].text}": Text(
        "experiments/exhibits/exhibits.py",
        tuple(dict.fromkeys((*JOBS["solvers"].suites, *best_known.SUITES, *verifiable.SUITES))),
        _solver_tables,
    ),
    f"results/{JOBS['heuristics'].text}": Text(
        "experiments/exhibits/exhibits.py",
        tuple(dict.fromkeys((*JOBS["heuristics"].suites, *search_claims.SUITES))),
        _heuristic_tables,
    ),
    "paper/numbers.json": Text("experiments/exhibits/paper_numbers.py", paper_numbers.SUITES, paper_numbers.render),
    **{
        f"paper/tables/{name}.csv": Text("experiments/exhibits/paper_tables.py", suites, partial(paper_tables.render, build))
        for name, (suites, build) in paper_tables.TABLES.items()
    },
}
"""Files by their path in the project."""


def _replicating(_: Rows) -> str:
    """Return for every figure the command that measures its rows anew."""
    commands = {name: f"eplb-gap {job.command}" for name, job in JOBS.items()}
    figures_of = [(figure.name, commands[figure.job]) for figure in FIGURES]
    return markdown(
        ["figure of `paper/figures`", "rows measured by"], [[f"`{name}`", f"`{command}`"] for name, command in figures_of]
    )


BLOCKS = {
    "replicating": Text("experiments/exhibits/exhibits.py", (), _replicating),
    **{
        title: Text(catalogue.script(module), drawn.suites, drawn.render)
        for module, study in STUDIES.items()
        for title, drawn in study.blocks.items()
    },
}
"""Parts of the README and of the pages of docs/ between ``<!-- NAME -->`` and ``<!-- /NAME -->``."""
