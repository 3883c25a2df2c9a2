"""What a redundant slot buys: the certified optimum and two heuristics with 0 to 64 slots more than experts."""

from __future__ import annotations

from fractions import Fraction
from statistics import fmean

import numpy as np

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.traces import FLAGSHIP, TRACE_TITLES, TRACES, WINDOWS, trace
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import WINDOWS_BOUNDED, WINDOWS_PLANNED
from eplb_gap.experiments.measuring.rows import Fields, Instance, Row, Rows
from eplb_gap.experiments.measuring.solve_cells import bounded_row, planned_row
from eplb_gap.experiments.measuring.statistics import Interval, ratio_interval
from eplb_gap.experiments.studies.numbers import Number, Pattern, interval_text, span
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.deployment import Deployment

SUITE = "redundancy"
EXPERTS, MOST = 256, 64
SWEEP = {
    ("global", 8): range(0, MOST + 1, 8),
    ("global", 16): range(0, MOST + 1, 16),
    ("global", 32): range(0, MOST + 1, 32),
    ("global", 64): range(0, MOST + 1, 64),
    ("hierarchical", FLAGSHIP.num_gpus): range(0, MOST + 1, 32),
}
"""Redundant slots by policy and GPUs: the multiples of the GPUs."""
HEURISTICS = ("initial_program", "fast")
TARGET_GAP, SECONDS = 1e-3, 5.0
"""Of a window's solve; the time limit decides without redundant slots, where counts are fixed and packing is all there is."""


def deployment(policy: str, gpus: int, redundant: int) -> Deployment:
    """Return the deployment; the hierarchical one has the flagship's nodes and groups."""
    if policy == "global":
        return Deployment(EXPERTS, EXPERTS + redundant, gpus)
    return Deployment(EXPERTS, EXPERTS + redundant, gpus, FLAGSHIP.num_nodes, FLAGSHIP.num_groups)


def instance(trace_name: str, policy: str, gpus: int, redundant: int) -> str:
    """Return the name of a trace on a deployment: experts/slots/GPUs."""
    return f"{trace_name} {EXPERTS}/{EXPERTS + redundant}/{gpus}{'' if policy == 'global' else ' ' + policy}"


def made(trace_name: str, policy: str, gpus: int, redundant: int, **_: object) -> Instance:
    """Return the windows of a trace and a deployment of the sweep."""
    return trace(trace_name).loads, deployment(policy, gpus, redundant)


def heuristic_cell(trace_name: str, policy: str, gpus: int, redundant: int, method: str) -> Fields:
    """Plan on every window but the last with a heuristic and serve the next."""
    return planned_row(*made(trace_name, policy, gpus, redundant), method)


def bound_cell(trace_name: str, policy: str, gpus: int, redundant: int) -> Fields:
    """Bound the optimum of every window but the last, and serve the next with the map found."""
    return bounded_row(*made(trace_name, policy, gpus, redundant), TARGET_GAP, SECONDS)


def cells() -> list[Cell]:
    """Return the cells: both traces, every deployment of the sweep, the solver and two heuristics."""
    found = []
    for name in TRACES:
        for (policy, gpus), slots in SWEEP.items():
            for redundant in slots:
                at = {"trace_name": name, "policy": policy, "gpus": gpus, "redundant": redundant}
                key = instance(name, policy, gpus, redundant)
                found.append(Cell(SUITE, key, "auto", bound_cell, at))
                found += [Cell(SUITE, key, m, heuristic_cell, {**at, "method": m}) for m in HEURISTICS]
    return found


def price(measured: Rows, trace_name: str, policy: str, gpus: int, redundant: int) -> tuple[float, float]:
    """Return the bounds of the optimum's makespan, summed over windows and layers, above that with 64 redundant slots, in %.

    From above, a layer's optimum is bounded by the best legal map of all methods. The interval reaches below 0 where the bounds
    do not tell the two optima apart.
    """
    if redundant == MOST:
        return 0.0, 0.0
    (low, high), (least, most) = (_bounds(measured, trace_name, policy, gpus, count) for count in (redundant, MOST))
    return 100 * float(low / most - 1), 100 * float(high / least - 1)


def _bounds(measured: Rows, trace_name: str, policy: str, gpus: int, redundant: int) -> tuple[Fraction, Fraction]:
    """Return the bounds of the optimum's makespan, summed over windows and layers."""
    found = _legal(measured, trace_name, policy, gpus, redundant)
    best = (min(values) for values in zip(*(row.upper for row in found), strict=True))
    return sum(found[0].lower, Fraction(0)), sum(best, Fraction(0))


def _legal(measured: Rows, trace_name: str, policy: str, gpus: int, redundant: int) -> Rows:
    """Return the rows of a deployment whose maps are all legal, the solver's first."""
    at = trace_name, policy, gpus, redundant
    found = [find(measured, *at, method) for method in ("auto", *HEURISTICS)]
    return Rows(row for row in found if row["kind"] == "solver" or row["status"] == "legal")


def find(measured: Rows, trace_name: str, policy: str, gpus: int, redundant: int, method: str) -> Row:
    """Return the row of one cell."""
    return measured.one(suite=SUITE, instance=instance(trace_name, policy, gpus, redundant), method=method)


def served_price(measured: Rows, trace_name: str, policy: str, gpus: int, redundant: int) -> Interval:
    """Return the makespan on serving windows, summed as :func:`price` sums it, above that with 64 redundant slots, in %.

    Of the solver's maps, with a bootstrap interval over the pairs of windows.
    """
    few, most = (find(measured, trace_name, policy, gpus, count, "auto")["serving"] for count in (redundant, MOST))
    # A window's makespans are its mean GPU loads over balancedness; the number of GPUs cancels.
    tokens = trace(trace_name).loads[1:].sum(axis=(1, 2)).astype(float)
    found = ratio_interval(tokens / np.array(few), tokens / np.array(most))
    return Interval(*(100 * (end - 1) for end in found))


def advice(measured: Rows) -> str:
    """Return what fewer redundant slots cost on both traces, as a Markdown list item."""
    said = []
    for name in TRACES:
        at = name, "global", FLAGSHIP.num_gpus
        parts = [
            f"{redundant} instead of {MOST}: {span(price(measured, *at, redundant), 1)} % on the window planned on, "
            f"{interval_text(served_price(measured, *at, redundant), 1, sign=True)} % on the next"
            for redundant in (0, MOST // 2)
        ]
        said.append(f"{name} ({TRACE_TITLES[name]}): {', '.join(parts)}")
    return (
        f"* *Redundant slots* ({EXPERTS} experts, {FLAGSHIP.num_gpus} GPUs, global): makespan with fewer, on the window "
        "planned on of the optimum (proven bounds), on the next of the solver's maps (95 % interval over pairs of windows, which "
        "overlap): "
        f"{'; '.join(said)}."
    )


def table(measured: Rows) -> str:
    """Return balancedness and price by redundant slots as Markdown, one table per trace."""
    header = [
        "GPUs, policy",
        "redundant slots",
        "optimum",
        *(f"`{m}` {side}" for m in HEURISTICS for side in ("planning", "serving")),
        "solver's map serving",
        "price planning, %",
        "price serving, %",
    ]
    sections = []
    for name in TRACES:
        body = [_line(measured, name, policy, gpus, redundant) for (policy, gpus), slots in SWEEP.items() for redundant in slots]
        layers = trace(name).loads.shape[1]
        sections.append(f"### {name.capitalize()} trace ({TRACE_TITLES[name]}), {layers} layers\n\n" + markdown(header, body))
    return (
        f"## Redundant slots\n\n{EXPERTS} experts; the hierarchical deployment has {FLAGSHIP.num_nodes} nodes and "
        f"{FLAGSHIP.num_groups} groups. GPU balancedness, mean over {WINDOWS - 1} pairs of windows; *optimum*: between the best "
        f"of the three maps and the proven limit of any map (target gap {TARGET_GAP:g}, at most {SECONDS:g} s a window). "
        f"*Price*: the optimum's makespan, summed over layers and windows, above that with {MOST} redundant slots (interval of "
        "the proven bounds), and the same ratio of the solver's maps on the serving windows (95 % bootstrap interval over pairs, "
        "which share windows).\n\n" + "\n\n".join(sections) + "\n"
    )


def _line(measured: Rows, trace_name: str, policy: str, gpus: int, redundant: int) -> list[str]:
    at = trace_name, policy, gpus, redundant
    legal_rows = _legal(measured, *at)
    optimum, best = legal_rows[0], [max(values) for values in zip(*(row["planning"] for row in legal_rows), strict=True)]
    cells = [f"{gpus}, {policy}", str(redundant), f"{fmean(best):.4f} to {fmean(optimum['limit']):.4f}"]
    for method in HEURISTICS:
        row = find(measured, *at, method)
        legal = row["status"] == "legal"
        cells += [f"{fmean(row[side]):.4f}" if legal else row["status"] for side in ("planning", "serving")]
    return [
        *cells,
        f"{fmean(optimum['serving']):.4f}",
        "{:+.2f} to {:+.2f}".format(*price(measured, *at)),
        interval_text(served_price(measured, *at), 2, sign=True),
    ]


def _patterns(trace_name: str, policy: str, gpus: int, redundant: int, method: str) -> tuple[Pattern, ...]:
    return tuple((SUITE, instance(trace_name, policy, gpus, count), method) for count in (redundant, MOST))


def _planning(gpus: int, redundant: int, trace_name: str = "calibrated") -> Number:
    """What fewer than 64 redundant slots cost on the window planned on, as an interval of proven bounds."""
    at = trace_name, "global", gpus, redundant
    return Number(_patterns(*at, "*"), lambda rows: span(price(rows, *at), 1))


def _serving(gpus: int, redundant: int, trace_name: str = "calibrated") -> Number:
    """What they cost on the next window."""
    at = trace_name, "global", gpus, redundant
    return Number(_patterns(*at, "auto"), lambda rows: interval_text(served_price(rows, *at), 1, sign=True))


STUDY = Study(
    SUITE,
    job="regimes",
    about="optimum and two heuristics with 0 to 64 redundant slots on both traces",
    cells=cells,
    shapes=(WINDOWS_PLANNED, WINDOWS_BOUNDED),
    instance=made,
    table=table,
    figures=("redundancy",),
    numbers={
        "slots-planning": _planning(32, 0),
        "slots-planning-half": _planning(32, 32),
        "slots-planning-wide": _planning(64, 0),
        "slots-planning-narrow": _planning(8, 0),
        "slots-serving": _serving(32, 0),
        "slots-serving-recorded": _serving(32, 0, "recorded"),
        "slots-planning-recorded": _planning(32, 0, "recorded"),
        "slots-serving-half": _serving(32, 32),
        "slots-serving-wide": _serving(64, 0),
    },
)
