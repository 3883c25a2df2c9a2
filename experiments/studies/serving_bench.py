"""All measurements of planning for serving in one run, and their levels: ``eplb-gap bench serving``."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from rich.console import Console

from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.loads.traces import POLICIES, TRACES
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.experiments.measuring.runner import run_cells
from eplb_gap.experiments.studies import (
    decomposition,
    elastic,
    history_serving,
    sample_average_gaps,
    serving_times,
    split_serving,
    step_flattery,
)
from eplb_gap.experiments.studies import migration as migration_front

UNTIMED = (
    history_serving,
    split_serving,
    sample_average_gaps,
    migration_front,
    elastic,
    step_flattery,
    decomposition,
)
SUITES = (serving_times.SUITE, *(module.SUITE for module in UNTIMED))
START_MS, ALL_MS, SPLIT_US = 15.0, 100.0, 50.0
ALTERNATING_POINTS, DRIFTING_POINTS = 10.0, -1.5
SMALL_GAP, LP_DIFFERENCE, CLOSED = 0.01, 1e-7, 0.25


def cells() -> list[Cell]:
    """Return all cells."""
    return [*serving_times.cells(), *(cell for module in UNTIMED for cell in module.cells())]


def run(folder: Path, workers: int, console: Console, scheduler: str | None = None) -> list[Row]:
    """Run what is missing in ``folder`` and return all rows.

    Parameters
    ----------
    folder : Path
    workers : int
        Processes of the suites in which no time is measured.
    console : Console
    scheduler : str, optional
        Address of a Dask scheduler whose workers run what is not timed against a level.
    """
    timed = run_cells(serving_times.cells(), folder, 1, console)
    return timed + run_cells([cell for module in UNTIMED for cell in module.cells()], folder, workers, console, scheduler)


def tables(measured: list[Row]) -> str:
    """Return all tables as Markdown."""
    sections = [levels_table(measured), *(module.table(measured) for module in UNTIMED), serving_times.table(measured)]
    return "# Serving, measured\n\n" + "\n\n".join(section.rstrip() for section in sections) + "\n"


def advice(measured: list[Row]) -> str:
    """Return what to do about serving, with its measured gain, as Markdown list items."""
    closed = {
        planner: [100 * split_serving.closed(measured, name, policy, planner) for name in TRACES for policy in POLICIES]
        for planner in ("fast", "ring")
    }
    part = {planner: f"{min(values):.0f} to {max(values):.0f} %" for planner, values in closed.items()}
    return (
        history_serving.advice(measured)
        + "\n* *any* (both traces): tokens divided over replicas by the loads that are served (`eplb_gap.optimal_split`) close "
        + f"{part['fast']} of the distance to a map planned on those very loads, with maps made for it "
        + f"(`eplb_gap.plan_for_split`) {part['ring']}; shares planned on the past close nothing."
    )


def levels_table(measured: list[Row]) -> str:
    """Asked and measured levels side by side."""
    body = []
    for windows in serving_times.HISTORIES:
        for policy in POLICIES:
            start, whole = (
                1000 * serving_times.seconds(measured, policy, f"sample-average {windows}{part}") for part in (", start", "")
            )
            body.append(
                [
                    f"sample-average, m = {windows}, {policy}",
                    f"<= {START_MS:g} ms start, <= {ALL_MS:g} ms in all",
                    f"{start:.1f} ms, {whole:.1f} ms",
                    yes_or_no(start <= START_MS and whole <= ALL_MS),
                ]
            )
    for name in history_serving.TRAFFIC:
        least = ALTERNATING_POINTS if name in history_serving.MIXES else DRIFTING_POINTS
        for policy in POLICIES:
            for windows in history_serving.MERGED:
                row = history_serving.find(measured, name, policy, windows)
                mean, low, high = history_serving.gain(row, "sample-average", "sum")
                body.append(
                    [
                        f"sample-average against the sum, {name}, {policy}, m = {windows}",
                        f">= {least:+g} points",
                        f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]",
                        yes_or_no(mean >= least),
                    ]
                )
    gaps = sample_average_gaps.gathered(measured, "gaps")
    found = [row for row in measured if row["suite"] == sample_average_gaps.SUITE]
    proven = min(sum(row["proven"][model] for row in found) for model in sample_average_gaps.MODELS)
    body.append(
        [
            f"sample-average, {len(gaps)} instances of <= 10 slots",
            f"all proven, mean gap <= {100 * SMALL_GAP:g} %",
            f"{proven} proven by every model, mean {100 * fmean(gaps):.3f} %, worst {100 * max(gaps):.2f} %",
            yes_or_no(proven == len(gaps) and fmean(gaps) <= SMALL_GAP),
        ]
    )
    splits = [row for row in measured if row["suite"] == split_serving.SUITE]
    difference = max(row["difference_to_lp"] for row in splits)
    for policy in POLICIES:
        took = 1e6 * serving_times.seconds(measured, policy, "token split") / 58
        body.append(
            [
                f"token split, {policy}",
                f"within {LP_DIFFERENCE:g} of the LP, <= {SPLIT_US:g} us a layer",
                f"{difference:.1e}, {took:.1f} us",
                yes_or_no(difference <= LP_DIFFERENCE and took <= SPLIT_US),
            ]
        )
    for name in TRACES:
        for policy in POLICIES:
            shares = {planner: split_serving.closed(measured, name, policy, planner) for planner in ("fast", "ring")}
            body.append(
                [
                    f"token split on the serving window, {name}, {policy}",
                    f"closes >= {100 * CLOSED:g} % of the distance to the oracle map",
                    ", ".join(f"`{planner}` map {100 * share:.1f} %" for planner, share in shares.items()),
                    yes_or_no(max(shares.values()) >= CLOSED),
                ]
            )
    body += migration_front.levels(measured)
    return "## Levels of serving\n\n" + markdown(["what", "asked", "measured", "met"], body)
