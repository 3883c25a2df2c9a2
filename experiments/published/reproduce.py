"""Measure anew and compare: the main job, or the whole grid with every bench (hours)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from eplb_gap.experiments.exhibits.exhibits import FIGURES, TEXTS
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.published import certificates
from eplb_gap.experiments.published.compare import Comparison, compare
from eplb_gap.experiments.studies.jobs import JOBS, MAIN, Selection
from eplb_gap.experiments.studies.jobs import keys as all_keys


@dataclass(frozen=True)
class Report:
    """What a reproduction produced: rows, the main job's tables ("" if a cell failed), comparison with the published rows."""

    rows: Rows
    tables: str
    comparison: Comparison


def reproduce(
    folder: Path,
    workers: int,
    console: Console,
    scheduler: str | None = None,
    everything: bool = False,
    only: Selection | None = None,
) -> Report:
    """Run what is missing in ``folder``, draw it there, compare with ``results/``.

    Parameters
    ----------
    folder : Path
        Receives the rows, the texts that the project publishes of them and ``figures/``; a second call goes on where the first
        was stopped.
    workers : int
        Processes of the studies that measure no time.
    console : Console
        For progress.
    scheduler : str, optional
        Address of a Dask scheduler whose workers run what is not timed.
    everything : bool, default False
        All jobs, what is drawn from several of them and the certificates, not the main job alone.
    only : Selection, optional
        Rows that are measured, of all jobs, and compared; nothing is drawn then.

    Raises
    ------
    InputError
        If the selection names a suite or a method that no row has.
    """
    if only is not None:
        only.check(key for keys in all_keys().values() for key in keys)
        chosen = Rows(row for job in JOBS.values() for row in job.run(folder, workers, console, scheduler, only))
        return Report(chosen, "", compare(chosen, rows.read_suites(rows.RESULTS)))
    jobs = JOBS if everything else {MAIN: JOBS[MAIN]}
    finished = Rows()
    for job in jobs.values():
        if everything:
            console.rule(job.command)
        finished += job.run(folder, workers, console, scheduler)
    tables = ""
    if not any(row.failed for row in finished):
        names = TEXTS if everything else [f"results/{job.text}" for job in jobs.values()]
        texts = {Path(name).name: TEXTS[name].render(finished) for name in names}
        for name, text in texts.items():
            (folder / name).write_text(text)
        (folder / "figures").mkdir(exist_ok=True)
        for figure in FIGURES:
            if figure.job in jobs:
                figure.draw(finished, folder / "figures")
        tables = texts[JOBS[MAIN].text]
        if everything:
            console.rule("certificates")
            for line in certificates.write(folder / certificates.FOLDER):
                console.print(line, markup=False, highlight=False)
    return Report(finished, tables, compare(finished, rows.read_suites(rows.RESULTS)))
