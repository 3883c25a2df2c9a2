"""Run cells in processes of their own, append their rows as they finish, skip what is done."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from experiments import rows
from experiments.rows import Row


@dataclass(frozen=True)
class Cell:
    """One measurement: a module-level function, its arguments, and the key of the row it makes.

    Parameters
    ----------
    suite, instance, method : str
    seed : int
    function : callable
        ``function(**arguments)`` returns the row's own fields as a dict; runs in a worker process.
    arguments : dict
        Picklable.
    """

    suite: str
    instance: str
    method: str
    function: Callable[..., Row]
    arguments: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Key of the cell's row."""
        return self.suite, self.instance, self.method, self.seed


def run_cells(cells: list[Cell], folder: Path, workers: int, console: Console) -> list[Row]:
    """Run what is missing in ``folder`` and return the rows of all cells.

    Rows of another revision do not count as done. Ctrl-C lets no further cell start and loses only those in flight.

    Parameters
    ----------
    cells : list of Cell
    folder : Path
        Holds one ``SUITE.ndjson`` per suite.
    workers : int
        Processes; each uses one thread.
    console : Console
        Shows a progress bar where it is a terminal.

    Returns
    -------
    list of dict
        One row per cell, in the order of the cells.
    """
    revision = rows.environment()["revision"]
    done = {rows.key(row): row for row in rows.read_suites(folder) if row["revision"] == revision}
    missing = [cell for cell in cells if cell.key not in done]
    console.print(f"{len(cells)} cells, {len(cells) - len(missing)} done before, {len(missing)} to run with {workers} worker(s)")
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    # Children must not open thread pools of their own: set before they import numpy or torch.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = "1"
    with bar, ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        task = bar.add_task("running", total=len(missing))
        flying: dict[Future[Row], Cell] = {pool.submit(_run_cell, cell): cell for cell in missing}
        try:
            while flying:
                ended = wait(flying, return_when=FIRST_COMPLETED).done
                # Rows of cells that ended together with a failed one are kept before the failure is raised.
                for future in sorted(ended, key=lambda future: future.exception() is not None):
                    cell = flying.pop(future)
                    row = future.result()
                    rows.append(folder / f"{cell.suite}.ndjson", row)
                    done[cell.key] = row
                    bar.update(task, advance=1, description=f"{cell.instance} {cell.method}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return [done[cell.key] for cell in cells]


def _run_cell(cell: Cell) -> Row:
    wall, cpu = time.perf_counter(), time.process_time()
    fields = cell.function(**cell.arguments)
    return {
        "suite": cell.suite,
        "instance": cell.instance,
        "method": cell.method,
        "seed": cell.seed,
        "cell_wall_seconds": time.perf_counter() - wall,
        "cell_cpu_seconds": time.process_time() - cpu,
        "timestamp": rows.now(),
        **rows.environment(),
        **fields,
    }
