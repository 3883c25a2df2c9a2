"""What a study is: one record at the end of its own file, from which everything else about it follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import Shape
from eplb_gap.experiments.measuring.rows import Instance, Rows
from eplb_gap.experiments.measuring.runtime import Timing
from eplb_gap.experiments.studies.numbers import Number
from eplb_gap.problem.deployment import Deployment


@dataclass(frozen=True)
class Drawn:
    """A text drawn from rows.

    Parameters
    ----------
    suites : tuple of str
        Rows of no other suite are needed.
    render : callable
        From rows to the text, as Markdown.
    """

    suites: tuple[str, ...]
    render: Callable[[Rows], str]


@dataclass(frozen=True)
class Study:
    """One question: what is measured to answer it, what its rows hold, and what is drawn from them.

    Parameters
    ----------
    suite : str
        Of its rows, and the stem of their file. Studies may share one.
    job : str
        Key of :data:`eplb_gap.experiments.studies.jobs.JOBS`.
    about : str
        What the rows are, for the list of files in results/README.md; studies that say the same share a line.
    cells : callable, optional
        Return the cells. None for a study that draws from the rows of others.
    timings : callable, optional
        Return what is timed in one invocation instead of cell by cell.
    shapes : tuple of Shape
        What the rows hold, by kind.
    instance : callable, optional
        From a cell's arguments to the instance that its row must be of; whoever checks rows makes them anew. None if a row is of
        many instances.
    hashed : callable
        From a deployment to what the rows' hashes are made of; itself, unless rows were published under another text.
    table : callable, optional
        The study's section of the job's tables.
    levels : callable, optional
        Lines of the job's table of levels: what, asked, measured, met.
    figures : tuple of str
        Modules of :mod:`eplb_gap.experiments.exhibits.figures`.
    numbers : mapping
        Numbers of the paper by name.
    blocks : mapping
        Parts of the README and of docs/ by the name of their block.
    timed : bool, default False
        Its cells measure times: they run one at a time, and on this machine.
    appendix : bool, default False
        Its section comes behind those of the others.
    """

    suite: str
    job: str
    about: str = ""
    cells: Callable[[], list[Cell]] = list
    timings: Callable[[], list[Timing]] = list
    shapes: tuple[Shape, ...] = ()
    instance: Callable[..., Instance] | None = None
    hashed: Callable[[Deployment], Deployment | str] = lambda deployment: deployment
    table: Callable[[Rows], str] | None = None
    levels: Callable[[Rows], list[list[str]]] | None = None
    figures: tuple[str, ...] = ()
    numbers: Mapping[str, Number] = field(default_factory=dict)
    blocks: Mapping[str, Drawn] = field(default_factory=dict)
    timed: bool = False
    appendix: bool = False
