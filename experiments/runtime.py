"""Runtime of heuristics in one invocation: a process per method, warm, rounds interleaved, one thread each."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np

from experiments import rows
from experiments.rows import Row
from problem.deployment import Deployment


def measure(
    methods: list[str],
    loads: np.ndarray,
    deployment: Deployment,
    instance: str,
    rounds: int,
    tick: Callable[[str], None],
    calls: int = 1,
) -> list[Row]:
    """Time every method ``rounds`` times after one warm-up, round by round, and return a row per method.

    Parameters
    ----------
    methods : list of str
        Keys of :data:`heuristics.METHODS`; the first is the base of the ratios.
    loads : ndarray
        int64 [layers, experts].
    deployment : Deployment
    instance : str
        Name of the instance in the rows.
    rounds : int
    tick : callable
        Called with the method's name after every turn.
    calls : int, default 1
        Calls in a turn; the last one is timed, so that with several the processor's caches are warm.

    Returns
    -------
    list of dict
        ``seconds`` of all rounds, their median and the ratio of medians to the first method's in this invocation.
    """
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
    medians = {method: statistics.median(values) for method, values in seconds.items()}
    return [
        {
            "suite": "runtime",
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
        }
        for method in methods
    ]


def _serve(pipe: Connection, method: str, loads: np.ndarray, deployment: Deployment, calls: int) -> None:
    import torch

    from heuristics import rebalance

    torch.set_num_threads(1)
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
