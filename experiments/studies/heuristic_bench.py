"""All measurements of the heuristics in one run, and their levels: ``eplb-gap bench heuristics``."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from rich.console import Console

from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.experiments.measuring.runner import run_cells
from eplb_gap.experiments.studies import head_to_head, recommendations, shape_levels
from eplb_gap.experiments.studies import relabelling as migration_table
from eplb_gap.experiments.studies.head_to_head import BASE
from eplb_gap.heuristics.programs.peers import PEERS

SUITES = ("heuristics", "heuristic_seconds", "shapes", "scaling", "recommendations", migration_table.SUITE)


def cells() -> list[Cell]:
    """Return all cells."""
    return [*shape_levels.cells(), *_untimed_cells()]


def _untimed_cells() -> list[Cell]:
    modules = (head_to_head, recommendations, migration_table)
    return [cell for module in modules for cell in module.cells()]


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
    timed = head_to_head.times(folder, console)
    timed += run_cells(shape_levels.cells(), folder, 1, console)
    return timed + run_cells(_untimed_cells(), folder, workers, console, scheduler)


def tables(measured: list[Row]) -> str:
    """Return all tables as Markdown."""
    sections = [
        levels_table(measured),
        head_to_head.table(measured),
        shape_levels.tables(measured),
        recommendations.table(measured),
        migration_table.table(measured),
    ]
    return "# Heuristics, measured\n\n" + "\n\n".join(section.rstrip() for section in sections) + "\n"


def levels_table(measured: list[Row]) -> str:
    """Asked and measured levels side by side."""
    body = []
    hierarchical, flat = (head_to_head.seconds(measured, policy) for policy in ("hierarchical", "global"))
    rival = min((m for m in hierarchical if m in PEERS), key=lambda m: hierarchical[m]["median_seconds"])
    for method, most_gap, base, share in (
        ("fast-lpt", None, BASE, 1 / 500),
        ("fast-lpt", None, rival, 0.45),
        ("fast", 5e-4, rival, 0.7),
        ("fast-split", 5e-5, rival, 3.0),
    ):
        body.append(_timed_level(measured, "hierarchical", hierarchical, method, most_gap, base, share))
    for method, most_gap, share in (("fast", 5e-4, 0.45), ("fast-split", 1e-4, 2.0)):
        body.append(_timed_level(measured, "global", flat, method, most_gap, "gepa", share))
    body += [*_shape_levels(measured), _duplicates_level(measured)]
    worst = {method: shape_levels.exponent(measured, method) for method in ("fast-lpt", "fast", "fast-split")}
    found = ", ".join(f"{method} {value:.2f}" for method, value in worst.items())
    body.append(["time exponent in slots, 9 a GPU, 8 to 1024 GPUs", "<= 1.2", found, yes_or_no(max(worst.values()) <= 1.2)])
    return (
        "## Levels of the heuristics\n\nCalibrated trace; the fastest opponent under the hierarchical policy is "
        f"`{rival}` ({1000 * hierarchical[rival]['median_seconds']:.2f} ms).\n\n"
        + markdown(["what", "asked", "measured", "met"], body)
    )


def _timed_level(
    measured: list[Row], policy: str, timed: dict[str, Row], method: str, most_gap: float | None, base: str, share: float
) -> list[str]:
    gap = fmean(head_to_head.mean_gaps(measured, "calibrated", policy, method))
    # Without a gap asked for, DeepSeek's is.
    limit = fmean(head_to_head.mean_gaps(measured, "calibrated", policy, BASE)) if most_gap is None else most_gap
    ratio = timed[method]["median_seconds"] / timed[base]["median_seconds"]
    return [
        f"{policy}, `{method}`",
        f"mean gap <= {100 * limit:.4f} %, time <= {share:.4g} x `{base}`",
        f"{100 * gap:.4f} %, {1000 * timed[method]['median_seconds']:.2f} ms, {ratio:.4g} x",
        yes_or_no(gap <= limit and ratio <= share),
    ]


def _shape_levels(measured: list[Row]) -> list[list[str]]:
    shapes = {row["instance"]: row for row in measured if row["suite"] == "shapes"}
    asked = [(f"128/160/32 {f}", "fast-counts", 4e-4, None, 50.0) for f in ("ln1.0", "zipf.8")]
    asked += [(f"64/96/32 {f}", "fast-counts", 3e-3, None, 50.0) for f in ("ln1.0", "zipf.8")]
    hot = [name for name in shapes if "zipf1.2" in name or "hottest" in name]
    asked += [(name, "fast", 2e-3, 2e-2, 5.0) for name in hot]
    asked += [(name, "fast", 1e-2, None, 20.0) for name in shapes if name.startswith("256/288/144")]
    body = []
    for name, method, mean, worst, milliseconds in asked:
        row = shapes[name]
        gaps, time = shape_levels.gaps(row, method), row["methods"][method]["ms_per_layer"]
        met = fmean(gaps) <= mean and time <= milliseconds and (worst is None or max(gaps) <= worst)
        if "Adams + fold" in row["methods"]:
            met &= fmean(gaps) <= fmean(shape_levels.gaps(row, "Adams + fold"))
        limit = f"mean <= {100 * mean:g} %" + (f", worst <= {100 * worst:g} %" if worst else "")
        found = f"{100 * fmean(gaps):.3f} / {100 * max(gaps):.3f} %, {time:.2f} ms"
        body.append([f"{name}, `{method}`", f"{limit}, {milliseconds:g} ms a layer", found, yes_or_no(met)])
    return body


def _duplicates_level(measured: list[Row]) -> list[str]:
    total = sum(
        found["duplicates"] or 0 for row in measured if row["suite"] == "shapes" for found in row["methods"].values()
    ) + sum(sum(r["duplicates"]) for r in measured if r["suite"] == "heuristics" and r["method"].startswith("fast"))
    return ["same-GPU duplicates, all maps above", "0", str(total), yes_or_no(total == 0)]
