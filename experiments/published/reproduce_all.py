"""The whole grid: the main job and every bench, their tables and figures, compared with the published rows; hours."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from eplb_gap.experiments.exhibits.exhibits import FIGURES, TEXTS
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.compare import compare
from eplb_gap.experiments.published.reproduce import Report, measure
from eplb_gap.experiments.studies.jobs import BENCHES


def reproduce_all(folder: Path, workers: int, console: Console, scheduler: str | None = None) -> Report:
    """Run what is missing of every job in ``folder``, draw everything there, compare with ``results/``.

    Parameters
    ----------
    folder : Path
        Receives the rows, the texts that the project publishes (tables, the paper's numbers) and ``figures/``; a second call
        goes on where the first was stopped.
    workers : int
        Processes of the suites that do not measure time.
    console : Console
        For progress.
    scheduler : str, optional
        Address of a Dask scheduler whose workers run what is not timed.
    """
    console.rule("reproduce")
    finished = measure(folder, workers, console, scheduler)
    for name, bench in BENCHES.items():
        console.rule(f"bench {name}")
        finished += bench.run(folder, workers, console, scheduler)
    tables = ""
    if not any(map(rows.failed, finished)):
        texts = {Path(path).name: text.render(finished) for path, text in TEXTS.items()}
        for name, text in texts.items():
            (folder / name).write_text(text)
        (folder / "figures").mkdir(exist_ok=True)
        for module in FIGURES:
            module.draw(finished, folder / "figures")
        tables = texts["tables.md"]
    return Report(finished, tables, compare(finished, rows.read_suites(rows.RESULTS)))
