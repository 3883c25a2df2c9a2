"""What a run shows of itself: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from eplb_gap.experiments.measuring.rows import Row

LINE_SECONDS = 30.0


class RunProgress:
    """Counts, rate and estimate of a run, as a context.

    Parameters
    ----------
    total : int
        Cells to run.
    console : Console
    """

    def __init__(self, total: int, console: Console) -> None:
        self._total, self._console = total, console
        self._ended = self._failed = 0
        self._started = self._said = time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[more]}"),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("running", total=total, more="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def ended(self, row: Row) -> None:
        """Count a cell whose row is written."""
        self._ended += 1
        self._failed += row.failed
        self._bar.update(self._task, advance=1, description=f"{row['instance']} {row['method']}", more=self._pace())

    def tick(self) -> None:
        """Say a line if it is time to."""
        now = time.monotonic()
        if not self._console.is_terminal and now - self._said >= LINE_SECONDS:
            self._said = now
            self._console.print(f"{self._ended} of {self._total} cells, {self._pace()}", soft_wrap=True, highlight=False)

    def _pace(self) -> str:
        rate = self._ended / max(time.monotonic() - self._started, 1e-9)
        left = f"{_duration((self._total - self._ended) / rate)} left" if rate else "no estimate yet"
        return f"{self._failed} failed, {rate:.3g} cells/s, {left}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
