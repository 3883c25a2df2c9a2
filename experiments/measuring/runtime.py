"""Runtime of heuristics in one invocation: a process per method, warm, rounds interleaved, one thread each."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.code_digest import digest
from eplb_gap.experiments.measuring.rows import Fields, Key, Row, Rows
from eplb_gap.problem import child
from eplb_gap.problem.deployment import Deployment


@dataclass(frozen=True)
class Timing:
    """One invocation that times several methods on one instance.

    Parameters
    ----------
    suite : str
        Of the rows.
    instance : str
        Name of the instance in the rows.
    methods : sequence of str
        Keys of :data:`eplb_gap.heuristics.METHODS`; the first is the base of the ratios.
    loads : ndarray
        int64 [layers, experts].
    deployment : Deployment
    rounds : int
        Timed turns after one to warm up, all methods in every turn.
    calls : int, default 1
        Calls in a turn; the last one is timed, so that with several the processor's caches are warm.
    beside : callable, optional
        From the loads to more fields for every row, measured in the same invocation.
    """

    suite: str
    instance: str
    methods: Sequence[str]
    loads: np.ndarray
    deployment: Deployment
    rounds: int
    calls: int = 1
    beside: Callable[[np.ndarray], Fields] | None = None

    @property
    def keys(self) -> list[Key]:
        """Keys of the rows, one per method."""
        return [Key(self.suite, self.instance, method, 0) for method in self.methods]

    @property
    def code(self) -> str:
        """Digest of the code that is timed and of what it is asked."""
        asked = {"methods": list(self.methods), "rounds": self.rounds, "calls": self.calls, "hash": self._hash}
        return digest(_serve, {"instance": self.instance, **asked})

    @property
    def _hash(self) -> str:
        return rows.instance_hash(self.loads, self.deployment)

    def run(self, folder: Path, console: Console) -> Rows:
        """Return a row of times per method: those that ``folder`` holds of this code, or else measured and appended there.

        Parameters
        ----------
        folder : Path
            Holds one ``SUITE.ndjson`` per suite.
        console : Console
            Shows a progress bar where it is a terminal.

        Returns
        -------
        Rows
            ``seconds`` of all rounds, their median and the ratio of medians to the first method's in this invocation.
        """
        path = folder / f"{self.suite}.ndjson"
        done = rows.done(rows.read(path), dict.fromkeys(self.keys, self.code))
        if len(done) == len(self.methods):
            return Rows(done[key] for key in self.keys)
        beside = self.beside(self.loads) if self.beside else {}
        with Progress(console=console) as bar:
            task = bar.add_task(self.suite, total=(self.rounds + 1) * len(self.methods))
            seconds = self._measure(lambda method: bar.update(task, advance=1, description=f"{self.suite} {method}"))
        medians = {method: statistics.median(values) for method, values in seconds.items()}
        measured = Rows(
            Row(
                {
                    **key._asdict(),
                    "kind": "runtime",
                    "status": "timed",
                    "hash": self._hash,
                    "code": self.code,
                    "parameters": {"rounds": self.rounds, "calls": self.calls, "threads": 1},
                    "seconds": seconds[key.method],
                    "median_seconds": medians[key.method],
                    "ratio": medians[key.method] / medians[self.methods[0]],
                    "timestamp": rows.now(),
                    **rows.environment(),
                    **beside,
                }
            )
            for key in self.keys
        )
        for row in measured:
            rows.append(path, row)
        return measured

    def _measure(self, tick: Callable[[str], None]) -> dict[str, list[float]]:
        """Time every method once per turn, turn by turn, each in a process of its own; return the seconds of all rounds."""
        workers: dict[str, tuple[BaseProcess, Connection]] = {}
        seconds: dict[str, list[float]] = {method: [] for method in self.methods}
        try:
            with child.environment(child.ONE_THREAD):
                for method in self.methods:
                    workers[method] = self._started(method)
            for turn in range(self.rounds + 1):
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

    def _started(self, method: str) -> tuple[BaseProcess, Connection]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        asked = (theirs, method, self.loads, self.deployment, self.calls)
        process = context.Process(target=_serve, args=asked, daemon=True)
        process.start()
        return process, ours


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
