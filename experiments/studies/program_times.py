"""Times of the ten programs, all in one invocation."""

from __future__ import annotations

from collections.abc import Callable

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.traces import FLAGSHIP, trace
from eplb_gap.experiments.measuring.row_schema import TIMES
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.measuring.runtime import Timing
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS

SUITE = "runtime"
ROUNDS = 5


def timings() -> list[Timing]:
    """Return the one invocation: the programs on the first window of the calibrated trace."""
    return [Timing(SUITE, "calibrated-00", list(SEED_PROGRAMS), trace("calibrated").window(0), FLAGSHIP, ROUNDS)]


def table(measured: Rows) -> str:
    """Median time of every program for a 58-layer window and its ratio to ``initial_program`` in the same invocation."""

    def milliseconds(row: Row, of: Callable[[list[float]], float]) -> str:
        return f"{1000 * of(row['seconds']):.1f}"

    timed = {row["method"]: row for row in measured.where(suite=SUITE)}
    body = [
        [
            f"`{m}`",
            f"{1000 * timed[m]['median_seconds']:.1f}",
            f"{milliseconds(timed[m], min)} to {milliseconds(timed[m], max)}",
            f"{timed[m]['ratio']:.3f}",
        ]
        for m in SEED_PROGRAMS
    ]
    rounds = timed["initial_program"]["parameters"]["rounds"]
    return (
        "## Runtime\n\nOne window of the calibrated trace (58 layers, hierarchical), one thread per program, "
        f"{rounds} interleaved rounds after a warm-up. Only ratios carry over to other machines, and they too moved by up to "
        "two fifths between two of them.\n\n"
        + markdown(["program", "median ms", "spread ms", "ratio to `initial_program`"], body)
    )


STUDY = Study(
    SUITE, job="reproduce", about="times of the ten programs in one invocation", timings=timings, shapes=(TIMES,), table=table
)
