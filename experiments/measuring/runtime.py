"""Runtime of heuristics in one invocation: a process per method, warm, rounds interleaved, one thread each."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell_servers import THREADS
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.problem.deployment import Deployment


def timed(
    path: Path,
    instance: str,
    methods: Sequence[str],
    loads: np.ndarray,
    deployment: Deployment,
    rounds: int,
    console: Console,
    calls: int = 1,
    beside: Mapping[str, Any] = MappingProxyType({}),
) -> list[Row]:
    """Return a row of times per method: those that ``path`` holds for this revision, or else measured and appended to it.

    Parameters
    ----------
    path : Path
        NDJSON file; its stem is the suite of the rows.
    instance : str
        Name of the instance in the rows.
    methods : sequence of str
        Keys of :data:`heuristics.METHODS`; the first is the base of the ratios.
    loads : ndarray
        int64 [layers, experts].
    deployment : Deployment
    rounds : int
        Timed turns after one to warm up, all methods in every turn.
    console : Console
        Shows a progress bar where it is a terminal.
    calls : int, default 1
        Calls in a turn; the last one is timed, so that with several the processor's caches are warm.
    beside : mapping, optional
        More fields for every row.

    Returns
    -------
    list of dict
        ``seconds`` of all rounds, their median and the ratio of medians to the first method's in this invocation.
    """
    revision = rows.environment()["revision"]
    done = [row for row in rows.read(path) if row["revision"] == revision and row["instance"] == instance]
    if {row["method"] for row in done} >= set(methods):
        return done
    with Progress(console=console) as bar:
        task = bar.add_task(path.stem, total=(rounds + 1) * len(methods))

        def tick(method: str) -> None:
            bar.update(task, advance=1, description=f"{path.stem} {method}")

        seconds = _measure(methods, loads, deployment, rounds, calls, tick)
    medians = {method: statistics.median(values) for method, values in seconds.items()}
    measured = [
        {
            "suite": path.stem,
            "instance": instance,
            "method": method,
            "seed": 0,
            "kind": "runtime",
            "status": "timed",
            "hash": rows.instance_hash(loads, deployment),
            "parameters": {"rounds": rounds, "calls": calls, "threads": 1},
            "seconds": seconds[method],
            "median_seconds": medians[method],
            "ratio": medians[method] / medians[methods[0]],
            "timestamp": rows.now(),
            **rows.environment(),
            **beside,
        }
        for method in methods
    ]
    for row in measured:
        rows.append(path, row)
    return measured


def _measure(
    methods: Sequence[str], loads: np.ndarray, deployment: Deployment, rounds: int, calls: int, tick: Callable[[str], None]
) -> dict[str, list[float]]:
    """Time every method once per turn, turn by turn, each in a process of its own; return the seconds of all rounds."""
    os.environ.update(dict.fromkeys(THREADS, "1"))  # the workers must not open thread pools: set before they import numpy
    context = multiprocessing.get_context("spawn")
    workers: dict[str, tuple[multiprocessing.process.BaseProcess, Connection]] = {}
    seconds: dict[str, list[float]] = {method: [] for method in methods}
    try:
        for method in methods:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, method, loads, deployment, calls), daemon=True)
            process.start()
            workers[method] = process, ours
        for turn in range(rounds + 1):
            for method, (_, pipe) in workers.items():
                pipe.send("run")
                elapsed = pipe.recv()
                if turn:  # the first round warms up
                    seconds[method].append(elapsed)
                tick(method)
    finally:
        for process, _ in workers.values():
            process.terminate()
            process.join()
    return seconds


def _serve(pipe: Connection, method: str, loads: np.ndarray, deployment: Deployment, calls: int) -> None:
    import torch

    from eplb_gap.heuristics import rebalance
    from eplb_gap.heuristics.environment import compile_first

    torch.set_num_threads(1)
    compile_first()
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        for _ in range(calls):
            start = time.perf_counter()
            rebalance(loads, deployment, method)
            elapsed = time.perf_counter() - start
        pipe.send(elapsed)
