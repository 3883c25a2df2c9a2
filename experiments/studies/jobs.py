"""Jobs: what one command measures; together they are the whole grid of the project."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.public_sources import check_given
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.rows import Key, Rows
from eplb_gap.experiments.measuring.runner import run_cells
from eplb_gap.experiments.measuring.runtime import Timing
from eplb_gap.experiments.studies import planner_times
from eplb_gap.experiments.studies.catalogue import STUDIES
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.errors import InputError


@dataclass(frozen=True)
class Selection:
    """Rows of the grid by suite and method.

    Parameters
    ----------
    suites, methods : tuple of str
        Names; none stands for all.
    """

    suites: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()

    def has(self, key: Key) -> bool:
        """Return whether a row is asked for."""
        return (not self.suites or key.suite in self.suites) and (not self.methods or key.method in self.methods)

    def check(self, grid: Iterable[Key]) -> None:
        """Raise an InputError that names what no row of the grid has."""
        known = list(grid)
        for what, named, there in (
            ("suite", self.suites, {key.suite for key in known}),
            ("method", self.methods, {key.method for key in known}),
        ):
            for name in named:
                if name not in there:
                    raise InputError(f"--{what} is {name!r}; one of {', '.join(sorted(there))} is needed")


@dataclass(frozen=True)
class Job:
    """The studies that one command runs, and the text that it prints.

    Parameters
    ----------
    name : str
        What the studies' records call it.
    command : str
        Of ``eplb-gap``.
    text : str
        File in ``results/`` that holds its tables.
    heading : str
        First lines of the text.
    levels : callable, optional
        From rows to what stands above the studies' levels; no table of them without it.
    """

    name: str
    command: str
    text: str
    heading: str
    levels: Callable[[Rows], str] | None = None

    @property
    def studies(self) -> list[Study]:
        """Its studies."""
        return [study for study in STUDIES.values() if study.job == self.name]

    @property
    def suites(self) -> tuple[str, ...]:
        """Suites of its rows."""
        return tuple(dict.fromkeys(study.suite for study in self.studies if study.shapes))

    def cells(self) -> list[Cell]:
        """Return all cells, those that measure times first."""
        return [cell for timed in (True, False) for cell in self._cells(timed)]

    def _cells(self, timed: bool) -> list[Cell]:
        return [cell for study in self.studies if study.timed is timed for cell in study.cells()]

    def timings(self) -> list[Timing]:
        """Return what is timed in invocations of its own."""
        return [timing for study in self.studies for timing in study.timings()]

    def codes(self) -> dict[Key, str]:
        """Return the digest of the code that makes it for every row of the job."""
        found = {cell.key: cell.code for cell in self.cells()}
        return found | {key: timing.code for timing in self.timings() for key in timing.keys}

    def run(
        self, folder: Path, workers: int, console: Console, scheduler: str | None = None, only: Selection | None = None
    ) -> Rows:
        """Run what is missing in ``folder`` and return all rows.

        Parameters
        ----------
        folder : Path
            Receives the rows; a second call goes on where the first was stopped.
        workers : int
            Processes of the studies that measure no time; the others run one at a time.
        console : Console
            For progress.
        scheduler : str, optional
            Address of a Dask scheduler whose workers run what is not timed.
        only : Selection, optional
            Rows that are asked for; all by default.

        Raises
        ------
        InputError
            If the folder of public loads that the environment names holds other ones than rows are published for.
        """
        check_given()
        wanted = only or Selection()
        timings = (timing for timing in self.timings() if all(map(wanted.has, timing.keys)))
        found = Rows(row for timing in timings for row in timing.run(folder, console))
        for timed in (True, False):
            cells = [cell for cell in self._cells(timed) if wanted.has(cell.key)]
            if cells and timed:
                found += run_cells(cells, folder, 1, console)
            elif cells:
                found += run_cells(cells, folder, workers, console, scheduler)
        return found

    def tables(self, measured: Rows) -> str:
        """Return all tables as Markdown."""
        sections = [self.heading]
        if self.levels is not None:
            lines = [line for study in self.studies if study.levels for line in study.levels(measured)]
            sections.append(self.levels(measured) + markdown(["what", "asked", "measured", "met"], lines))
        ordered = sorted(self.studies, key=lambda study: study.appendix)
        sections += [study.table(measured) for study in ordered if study.table]
        return "\n\n".join(section.rstrip() for section in sections) + "\n"


MAIN = "reproduce"
JOBS = {
    job.name: job
    for job in (
        Job(
            MAIN,
            "reproduce",
            "tables.md",
            "# Tables of the main job\n\nAll numbers come from the rows of one run; loads are named with every table.",
        ),
        Job("solvers", "bench solvers", "solver_tables.md", "# Exact engines, measured"),
        Job("heuristics", "bench heuristics", "heuristic_tables.md", "# Heuristics, measured", planner_times.above_levels),
        Job("serving", "bench serving", "serving_tables.md", "# Serving, measured", lambda measured: "## Levels of serving\n\n"),
        Job("regimes", "bench regimes", "regime_tables.md", "# Regimes, measured"),
        Job(
            "control",
            "bench control",
            "control_tables.md",
            "# Rebalancing over time, measured",
            lambda measured: "## Levels of controllers\n\nOne thread.\n\n",
        ),
        Job(
            "network",
            "bench network",
            "network_tables.md",
            "# From balance to time, measured",
            lambda measured: "## Levels of network and time\n\n",
        ),
    )
}
"""Every job by the name that studies call it."""
BENCHES = {name: job for name, job in JOBS.items() if name != MAIN}
"""Jobs by what ``eplb-gap bench`` calls them."""


def cells() -> dict[str, list[Cell]]:
    """Return the cells of every job: the grid."""
    return {job.command: job.cells() for job in JOBS.values()}


def codes() -> dict[str, dict[Key, str]]:
    """Return by job the keys of all rows that it makes, each with the digest of the code that makes it."""
    return {job.command: job.codes() for job in JOBS.values()}


def keys() -> dict[str, list[Key]]:
    """Return the keys of all rows that every job makes: those of its cells and of times that one invocation measures."""
    return {command: list(found) for command, found in codes().items()}
