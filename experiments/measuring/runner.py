"""Run cells in processes of their own, here or on a cluster; append their rows as they end, skip what is done."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from rich.console import Console

from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell, failure_row
from eplb_gap.experiments.measuring.cell_servers import CellServers
from eplb_gap.experiments.measuring.cluster import on_cluster
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.measuring.run_progress import LINE_SECONDS, RunProgress
from eplb_gap.problem.errors import InputError

NAMED_FAILURES = 20
CLUSTER_CELLS = 1000
"""Cells that a cluster has at once: more than it has threads, few enough to watch."""


def run_cells(cells: list[Cell], folder: Path, workers: int, console: Console, scheduler: str | None = None) -> Rows:
    """Run what is missing in ``folder`` and return the rows of all cells.

    A row is on the disk as soon as its cell ends; a run that is killed loses the cells in flight alone, and the next one does
    what is missing. Rows that other code made do not count as done (:attr:`Cell.code`), nor do failures: a cell that raised, ran
    out of time or memory, or was killed has a row that says so (:attr:`eplb_gap.experiments.measuring.rows.Row.failed`), the
    others go on, and the next run tries it again.

    Parameters
    ----------
    cells : list of Cell
    folder : Path
        Holds one ``SUITE.ndjson`` per suite.
    workers : int
        Cells at a time on this machine; each has one thread.
    console : Console
        Shows a progress bar where it is a terminal, a line every half minute elsewhere.
    scheduler : str, optional
        Address of a Dask scheduler whose workers run the cells instead; rows are written here all the same.

    Returns
    -------
    Rows
        One row per cell, in the order of the cells; failures among them.

    Raises
    ------
    InputError
        If another run writes rows of the same suites there, or the cluster cannot be used or is lost.
    """
    with ExitStack() as stack:
        for suite in sorted({cell.suite for cell in cells}):
            stack.enter_context(_locked(folder, suite))
        known = rows.done(rows.read_suites(folder), {cell.key: cell.code for cell in cells})
        missing = [cell for cell in cells if cell.key not in known]
        where = f"on {scheduler}" if scheduler else f"with {workers} worker(s)"
        console.print(f"{len(cells)} cells, {len(cells) - len(missing)} done before, {len(missing)} to run {where}")
        if missing:
            submit = stack.enter_context(on_cluster(scheduler) if scheduler else _on_this_machine(workers))
            progress = stack.enter_context(RunProgress(len(missing), console))
            at_once = CLUSTER_CELLS if scheduler else workers
            for row in _rows(missing, submit, at_once, progress):
                rows.append(folder / f"{row['suite']}.ndjson", row)
                known[row.key] = row
                progress.ended(row)
    found = Rows(known[cell.key] for cell in cells)
    _say_failures([row for row in found if row.failed], console)
    return found


@contextmanager
def _locked(folder: Path, suite: str) -> Iterator[None]:
    """Keep other runs away from a suite; the lock is gone with the process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {folder} for rows cannot be made ({error.strerror})") from None
    with (folder / f".{suite}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another run is writing rows of suite {suite} to {folder}; wait for it or choose another folder"
            ) from None
        yield


@contextmanager
def _on_this_machine(workers: int) -> Iterator[Callable[[Cell], Future[Row]]]:
    servers, pool = CellServers(), ThreadPoolExecutor(workers)
    try:
        yield lambda cell: pool.submit(servers.run, cell)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        servers.stop()
        pool.shutdown()


def _rows(cells: list[Cell], submit: Callable[[Cell], Future[Row]], at_once: int, progress: RunProgress) -> Iterator[Row]:
    """Yield the row of every cell, in the order they end; the next cell starts when the row has been dealt with."""
    waiting = iter(cells)
    flying = {submit(cell): cell for cell in islice(waiting, at_once)}
    while flying:
        for future in wait(flying, timeout=LINE_SECONDS, return_when=FIRST_COMPLETED).done:
            cell = flying.pop(future)
            try:
                row = future.result()
            except CancelledError:
                raise InputError("the cluster's scheduler was lost; rows so far are kept, run again for the others") from None
            except Exception as error:  # the cluster gave the cell up
                row = failure_row(cell, f"failed: {type(error).__name__}: {error}")
            if row.get("code") != cell.code:  # it was changed, here or where the cell ran
                row = failure_row(cell, f"failed: run by code {row.get('code')} of {row['revision']}, here it is {cell.code}")
            yield row
            flying |= {submit(cell): cell for cell in islice(waiting, 1)}
        progress.tick()


def _say_failures(failures: list[Row], console: Console) -> None:
    if not failures:
        return
    console.print(f"{len(failures)} cell(s) failed; the next run tries them again:")
    for row in failures[:NAMED_FAILURES]:
        console.print(f"  {row.key}: {row['status']}", markup=False, highlight=False, soft_wrap=True)
    if len(failures) > NAMED_FAILURES:
        console.print(f"  and {len(failures) - NAMED_FAILURES} more")
