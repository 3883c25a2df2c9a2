"""Where the serving balance of DeepSeek's algorithm is lost, from the rows of the protocol."""

from __future__ import annotations

from statistics import fmean

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.traces import TRACES
from eplb_gap.experiments.measuring.rows import Rows, layer_gaps
from eplb_gap.experiments.measuring.statistics import mean_interval
from eplb_gap.experiments.studies import held_out
from eplb_gap.experiments.studies.numbers import interval_text
from eplb_gap.experiments.studies.protocol import ALL_PAIRS, BASE, OPTIMUM, SUITE, certified_balancedness, on_windows
from eplb_gap.experiments.studies.study import Drawn, Study


def table(measured: Rows) -> str:
    """Where the serving balance of DeepSeek's algorithm is lost, with its explanation."""
    return (
        "## Where `initial_program` loses serving balance\n\n"
        "Points of GPU-level balancedness, means over 11 window pairs, from 1 down to the best hierarchical placement found for "
        "the serving window, to the program replanned on it, to the program planned on the window before.\n\n"
        + loss_rows(measured)
    )


def loss_rows(measured: Rows) -> str:
    """The loss of serving balance in points of GPU balancedness, one row per trace."""
    body = []
    for name in TRACES:
        at, optimum = on_windows(measured, name, BASE), on_windows(measured, name, OPTIMUM)
        serving = fmean(r["serving"]["gpu"] for r in at[:ALL_PAIRS])
        replanned = fmean(r["planning"]["gpu"] for r in at[1:])
        best = fmean(certified_balancedness(r, name, w, "upper") for w, r in enumerate(optimum[1:], start=1))
        parts = 1 - best, best - replanned, replanned - serving
        gaps = [gap for row, solved in zip(at, optimum, strict=True) for gap in layer_gaps(row, solved.lower)]
        body.append(
            [
                name,
                f"{100 * fmean(gaps):.2f} / {100 * max(gaps):.2f} %",
                f"{serving:.4f}",
                *(f"{100 * part:.2f}" for part in parts),
                f"{100 * parts[2] / (1 - serving):.1f} %",
            ]
        )
    header = [
        "trace",
        "planning gap, mean / worst layer",
        "serving balancedness",
        "lost to hierarchy and integrality",
        "lost to the heuristic",
        "lost to forecasting",
        "forecasting's share",
    ]
    return markdown(header, body)


def over_seeds(measured: Rows) -> str:
    """The same over the held-out calibrated traces, whose loss is of the ten pairs that all rows have, with intervals."""
    parts: list[tuple[float, ...]] = []
    base = held_out.found_rows(measured, "calibrated", "hierarchical", held_out.BASE)
    solved = held_out.found_rows(measured, "calibrated", "hierarchical", held_out.OPTIMUM)
    for row, optimum in zip(base, solved, strict=True):
        serving, replanned, best = (fmean(of) for of in (row["serving"][:-1], row["planning"][1:], optimum["planning"][1:]))
        parts.append((100 * held_out.mean_gap(row, optimum), serving, 1 - best, best - replanned, replanned - serving))
    gap, served, *lost = (mean_interval(values) for values in zip(*parts, strict=True))
    points = [interval_text(part.scaled(100), 2) for part in lost]
    pairs = len(base[0]["serving"]) - 1
    return (
        f"Over {len(parts)} other calibrated traces (held out; hierarchical, {pairs} pairs each, 95 % intervals over traces): "
        f"planning gap {interval_text(gap, 2)} %, serving balancedness {interval_text(served, 4)}; lost to hierarchy and "
        f"integrality {points[0]} points, to the heuristic {points[1]}, to forecasting {points[2]}."
    )


def block(measured: Rows) -> str:
    """The loss of both traces and of the held-out ones."""
    return f"{loss_rows(measured)}\n\n{over_seeds(measured)}"


STUDY = Study(SUITE, job="reproduce", table=table, blocks={"loss table": Drawn((SUITE, held_out.SUITE), block)})
