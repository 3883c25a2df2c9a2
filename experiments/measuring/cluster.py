"""Cells on a Dask cluster: the same function, sent to the workers of a scheduler (extra ``cluster``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.cell_servers import CellServers
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.problem.errors import InputError

CONNECT_SECONDS = 10.0
_SERVERS = CellServers()
"""Of this process, if it is a worker; started when the first cell comes."""


def run_on_worker(cell: Cell) -> Row:
    """Run a cell in a process of its own on the worker that this is called on."""
    return _SERVERS.run(cell)


@contextmanager
def on_cluster(address: str) -> Iterator[Callable[[Cell], Future[Row]]]:
    """Yield a function that sends a cell to the cluster and returns the future of its row.

    A cell whose worker dies is run by another one. When the context ends early, cells in flight end by themselves; their rows
    are not kept.

    Parameters
    ----------
    address : str
        Of the scheduler, ``tcp://host:port``.

    Raises
    ------
    InputError
        If Dask is not installed, no scheduler answers, or its workers do not run this revision of the code.
    """
    try:
        import distributed
    except ImportError:
        raise InputError("--scheduler needs Dask: pip install 'eplb-gap[cluster]'") from None
    try:
        library: Any = distributed  # its functions have no types
        client = library.Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        found = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"--scheduler {address}: no Dask scheduler answers there ({found})") from None
    with client:
        _check_workers(client, address)
        executor = client.get_executor(pure=False)
        try:
            yield lambda cell: executor.submit(run_on_worker, cell)
        finally:
            executor.shutdown(wait=False)


def _check_workers(client: Any, address: str) -> None:
    try:
        found = client.run(rows.environment)
    except Exception as error:  # whatever unpickling and importing raise there
        raise InputError(f"--scheduler {address}: its workers cannot import eplb-gap ({type(error).__name__}: {error})") from None
    if not found:
        raise InputError(f"--scheduler {address}: it has no workers")
    here = rows.environment()["revision"]
    for worker, environment in found.items():
        if environment["revision"] != here:
            raise InputError(
                f"--scheduler {address}: worker {worker} runs revision {environment['revision']}, this machine {here}"
            )
