"""Where serving balance is lost: mean steps of the explanation over all pairs of windows, both traces, both policies."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from experiments.decomposition import POLICIES, SUITE, steps
from experiments.explain import STEPS
from experiments.figures.style import figure, save
from experiments.figures.waterfall import COLOURS
from experiments.rows import Row
from experiments.suites import TRACES
from experiments.tables import TRACE_TITLES

SUITES = (SUITE,)
METHOD = "fast"
LEAST_LABEL = 2.5
"""Steps of fewer points get no number: it would not fit."""


def draw(rows: list[Row], folder: Path) -> list[Path]:
    """Draw one stacked bar per trace and policy; steps below zero hang to the left of it."""
    fig, axis = figure(7.2, 2.9)
    bars = [(name, policy) for name in TRACES for policy in POLICIES]
    for row, (name, policy) in enumerate(bars):
        at = {True: 0.0, False: 0.0}
        for key, values in steps(rows, name, policy, METHOD).items():
            value = fmean(values)
            axis.barh(row, value, left=at[value < 0], color=COLOURS[key], height=0.6, label=STEPS[key] if row == 0 else None)
            if abs(value) >= LEAST_LABEL:
                dark = key in {"reassigned", "history", "replanned", "planned"}
                axis.text(
                    at[value < 0] + value / 2,
                    row,
                    f"{value:.1f}",
                    ha="center",
                    va="center",
                    color="w" if dark else "k",
                    fontsize=8,
                )
            at[value < 0] += value
    axis.set_yticks(range(len(bars)), [f"{name}\n{policy}" for name, policy in bars])
    axis.invert_yaxis()
    axis.set_xlabel("load of the fullest GPUs above the mean on the serving window, % (mean of 11 pairs of windows)")
    axis.set_title("; ".join(f"{name}: {title}" for name, title in TRACE_TITLES.items()), fontsize=7.5)
    fig.legend(loc="outside upper center", ncols=3, fontsize=8)
    return save(fig, folder, "decomposition")
