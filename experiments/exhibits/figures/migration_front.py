"""Serving balancedness against the share of replicas that may move, on slowly drifting windows.

Message: moving a tenth of the replicas keeps nearly all that a full re-plan gains.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from statistics import fmean

from eplb_gap.analysis.figures.style import DARK, LIGHT, MIDDLE, figure, save
from eplb_gap.experiments.loads.traces import POLICIES
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies.migration import ASKED_KEPT, FULL, SHARES, SLOW, SUITE, TITLES, find

SUITES = (SUITE,)


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Draw one panel per trace, one line per policy, and for each the full re-plan and the level asked for."""
    fig, axes = figure(7.2, 3.2, ncols=len(SLOW))
    at = range(len(SHARES))
    for axis, name in zip(axes, SLOW, strict=True):
        for policy, color, marker in zip(POLICIES, (DARK, MIDDLE), ("o", "s"), strict=True):
            line = [find(rows, name, policy, f"{share} %") for share in SHARES]
            full = fmean(find(rows, name, policy, FULL)["new"])
            axis.plot(at, [fmean(row["new"]) for row in line], color=color, marker=marker, markersize=4, label=policy)
            axis.axhline(full, color=color, linewidth=0.9, linestyle="--")
            asked = [fmean(row["kept"]) + ASKED_KEPT * (fmean(row["full"]) - fmean(row["kept"])) for row in line[1:]]
            axis.plot(at[1:], asked, color=LIGHT, linewidth=1.2, linestyle=":", zorder=1)
        axis.set_xticks(list(at), [str(share) for share in SHARES])
        axis.set_xlabel("replicas that may move, %")
        axis.set_title(textwrap.fill(f"{name}: {TITLES[name]}", 36), fontsize=7.5)
        axis.grid(axis="y", color="0.9")
    axes[0].set_ylabel("balancedness of the GPUs,\nnext window")
    handles, labels = axes[0].get_legend_handles_labels()
    handles += [axes[0].plot([], [], color="0.4", linewidth=0.9, linestyle="--")[0]]
    handles += [axes[0].plot([], [], color=LIGHT, linewidth=1.2, linestyle=":")[0]]
    labels += ["full re-plan every window", f"{100 * ASKED_KEPT:.0f} % of a re-plan's gain over the map in use"]
    fig.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    return save(fig, folder, "migration_front")
