"""Loads on which nothing was tuned: calibrated traces of other seeds, and a trace recorded from a second model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from statistics import fmean

import numpy as np

from eplb_gap import heuristics
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.synthetic import calibrated_trace
from eplb_gap.experiments.loads.traces import CERTIFIED_GAP, EXACT_SECONDS, POLICIES, RECORDED_TRACE
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, NUMBERS, WINDOWS_BOUNDED, WINDOWS_PLANNED, Shape
from eplb_gap.experiments.measuring.rows import Fields, Instance, Row, Rows, layer_gaps
from eplb_gap.experiments.measuring.solve_cells import bounded_row, planned_row
from eplb_gap.experiments.measuring.statistics import Interval, Paired, mean_interval, paired, ratio_interval
from eplb_gap.experiments.studies import redundancy, regimes
from eplb_gap.experiments.studies.numbers import Number, Pattern, interval_text, span
from eplb_gap.experiments.studies.study import Drawn, Study
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.loads import LoadTrace
from eplb_gap.problem.metrics import balancedness_gpu
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import verify

SUITE = "held_out"
SEEDS = tuple(range(9101, 9111))
"""Of calibrated traces that no other experiment, no test and no setting of a method has seen."""
RECORDED = "recorded"
HELD_OUT_TRACE = RECORDED_TRACE.with_name("held-out-windows.npz")
"""Recorded from a second small model, trained from another seed on the same text."""
TRACES = {"calibrated": SEEDS, RECORDED: (0,)}
"""Seeds by kind of trace; the recorded file itself says the seed of its model, and its rows say 0."""
BASE = "initial_program"
ONE_WINDOW = {
    "hierarchical": (BASE, "openevolve", "shinkaevolve", "fast", "fast-split"),
    "global": (BASE, "flashlb", "vllm-ascend", "spread-replica", "fast", "fast-split"),
}
"""Methods that plan on one window: of the others' those nearest to optimal, or best in service, in the head to head."""
HISTORY = 4
ON_HISTORY: dict[str, Callable[[np.ndarray, Deployment], Placement]] = {
    f"sample-average of {HISTORY}": lambda history, deployment: heuristics.rebalance(history, deployment, "sample-average"),
    f"fast on the sum of {HISTORY}": heuristics.rebalance,
}
OPTIMUM = "auto"
LEAST_POINTS = 0.1
"""Planning gain, lower end of its interval, of which a surviving part is stated."""


@cache
def held_out_trace(name: str, seed: int) -> LoadTrace:
    """Return a held-out trace.

    Raises
    ------
    InputError
        If the recorded one is not there.
    """
    return LoadTrace.load(HELD_OUT_TRACE) if name == RECORDED else calibrated_trace(seed)


def instance(trace_name: str, seed: int, policy: str, **_: object) -> Instance:
    """Return the windows of a held-out trace under a policy."""
    return held_out_trace(trace_name, seed).loads, POLICIES[policy]


def planned_cell(trace_name: str, seed: int, policy: str, method: str) -> Fields:
    """Plan on every window but the last and serve the next."""
    return planned_row(*instance(trace_name, seed, policy), method)


def bound_cell(trace_name: str, seed: int, policy: str) -> Fields:
    """Certify the optimum of every window but the last, and serve the next with the map found."""
    return bounded_row(*instance(trace_name, seed, policy), CERTIFIED_GAP, EXACT_SECONDS)


def history_cell(trace_name: str, seed: int, policy: str, method: str) -> Fields:
    """Plan on the windows before the serving window; the last of them is the planning window."""
    loads, deployment = instance(trace_name, seed, policy)
    planned, served = [], []
    for serve in range(HISTORY, len(loads)):
        placement = ON_HISTORY[method](loads[serve - HISTORY : serve], deployment)
        verify(placement, loads[serve], deployment)
        planned.append(balancedness_gpu(placement, loads[serve - 1], deployment.num_gpus))
        served.append(balancedness_gpu(placement, loads[serve], deployment.num_gpus))
    return {
        "kind": "history",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"windows": HISTORY},
        "status": "legal",
        "planning": planned,
        "serving": served,
    }


def cells() -> list[Cell]:
    """Return the cells: every trace, both policies, the solver and all methods."""
    found = []
    for name, seeds in TRACES.items():
        for seed in seeds:
            for policy, methods in ONE_WINDOW.items():
                key, at = f"{name} {policy}", {"trace_name": name, "seed": seed, "policy": policy}
                found.append(Cell(SUITE, key, OPTIMUM, bound_cell, at, seed))
                found += [Cell(SUITE, key, m, planned_cell, {**at, "method": m}, seed) for m in methods]
                found += [Cell(SUITE, key, m, history_cell, {**at, "method": m}, seed) for m in ON_HISTORY]
    return found


def found_rows(measured: Rows, trace_name: str, policy: str, method: str) -> Rows:
    """Return a method's rows, one per seed, in order of seeds; those of cells that gave no result are left out."""
    found = measured.where(suite=SUITE, trace=trace_name, policy=policy, method=method)
    return Rows(sorted((row for row in found if not row.failed), key=lambda row: row.key.seed))


def mean_gap(row: Row, optimum: Row) -> float:
    """Return a row's mean gap to the certified bound over windows and layers, on the planning windows."""
    return fmean(layer_gaps(row, optimum.lower))


def points(row: Row, base: Row, side: str) -> tuple[list[float], list[float]]:
    """Return balancedness of a row and of the base in points on the pairs of windows that both have: the last ones."""
    ours = row[side]
    return [100 * value for value in ours], [100 * value for value in base[side][-len(ours) :]]


def over_seeds(measured: Rows, policy: str, method: str, side: str) -> Paired:
    """Compare with DeepSeek's algorithm, in points of balancedness; the unit is the calibrated trace."""
    means = [tuple(map(fmean, points(row, base, side))) for row, base in _with_base(measured, "calibrated", policy, method)]
    return paired(*zip(*means, strict=True))


def over_pairs(measured: Rows, policy: str, method: str, side: str) -> Paired:
    """Compare with DeepSeek's algorithm, in points of balancedness, on the recorded trace; the unit is the pair of windows."""
    ((row, base),) = _with_base(measured, RECORDED, policy, method)
    return paired(*points(row, base, side))


def survival(measured: Rows, policy: str, method: str) -> Interval:
    """Return the serving gain over the planning gain, in %, with its interval over the calibrated traces."""
    gains: dict[str, list[float]] = {side: [] for side in ("serving", "planning")}
    for row, base in _with_base(measured, "calibrated", policy, method):
        for side, values in gains.items():
            ours, other = points(row, base, side)
            values.append(fmean(ours) - fmean(other))
    return ratio_interval(gains["serving"], gains["planning"]).scaled(100)


def _with_base(measured: Rows, trace_name: str, policy: str, method: str) -> list[tuple[Row, Row]]:
    ours, base = (found_rows(measured, trace_name, policy, name) for name in (method, BASE))
    return list(zip(ours, base, strict=True))


def _methods(policy: str) -> tuple[str, ...]:
    return *ONE_WINDOW[policy], *ON_HISTORY


def gap_text(measured: Rows, trace_name: str, policy: str, method: str) -> str:
    """Return a method's mean gap in % with its interval over traces; "-" for plans on a history, which no bound is of."""
    ours, optimum = (found_rows(measured, trace_name, policy, name) for name in (method, OPTIMUM))
    if any("upper" not in row for row in ours):
        return "-"
    if any(row["status"] != "legal" for row in ours):
        return "illegal"
    gaps = mean_interval([100 * mean_gap(row, bounds) for row, bounds in zip(ours, optimum, strict=True)])
    return _with_ends(gaps, 3) if len(ours) > 1 else f"{gaps.mean:.3f}"


def _with_ends(interval: Interval, digits: int, sign: str = "") -> str:
    mean, low, high = (f"{value:{sign}.{digits}f}" for value in interval)
    return f"{mean} [{low}, {high}]"


def _compared(found: Paired) -> list[str]:
    counts = f"{found.wins} / {found.ties} / {found.losses}"
    return [_with_ends(found.difference, 2, "+"), f"{found.effect:+.2f}", counts]


def _line(
    measured: Rows, trace_name: str, policy: str, method: str, compare: Callable[[Rows, str, str, str], Paired]
) -> list[str]:
    means = [
        f"{fmean(fmean(row[side]) for row in found_rows(measured, trace_name, policy, method)):.4f}"
        for side in ("planning", "serving")
    ]
    line = [f"{policy}, `{method}`", gap_text(measured, trace_name, policy, method), *means]
    if method == BASE:
        return [*line, *["-"] * 6]
    return [*line, *(cell for side in ("planning", "serving") for cell in _compared(compare(measured, policy, method, side)))]


def survives(measured: Rows, policy: str, method: str) -> str:
    """Return what survives of a method's planning gain, in %, or "-": the ratio of next to nothing says nothing."""
    if method == BASE or over_seeds(measured, policy, method, "planning").difference.low < LEAST_POINTS:
        return "-"
    return _with_ends(survival(measured, policy, method), 0)


def advice(measured: Rows) -> str:
    """Return what near-optimal maps gain on held-out loads, as a Markdown list item."""
    parts = []
    for policy in POLICIES:
        planning, serving = (
            _with_ends(over_seeds(measured, policy, "fast-split", side).difference, 2, "+") for side in ("planning", "serving")
        )
        parts.append(f"{policy} {planning} points of balancedness on the window planned on, {serving} on the next")
    return (
        f"* *Held-out loads* ({len(SEEDS)} calibrated, synthetic traces that nothing was tuned on): what `fast-split` gains over "
        f"`{BASE}`, with 95 % intervals over traces: {'; '.join(parts)}."
    )


def table(measured: Rows) -> str:
    """Return gaps, balancedness and comparisons on the held-out traces as Markdown."""
    header = [
        "policy, method",
        "gap, %",
        "planning",
        "serving",
        "planning gain, points",
        "effect, planning",
        "wins / ties / losses, planning",
        "serving gain, points",
        "effect, serving",
        "wins / ties / losses, serving",
    ]
    lines = [(policy, method) for policy in ONE_WINDOW for method in _methods(policy)]
    seeds = [[*_line(measured, "calibrated", *at, over_seeds), survives(measured, *at)] for at in lines]
    text = (
        "## Held-out loads\n\nFlagship; GPU balancedness on the planning and on the next window, mean gap to the certified bound "
        f"(target gap {CERTIFIED_GAP:g}). Nothing was tuned on these loads. Gains over `{BASE}` are paired, on the same pairs of "
        "windows, with 95 % bootstrap intervals; *effect* is the matched-pairs rank-biserial correlation, from -1 to 1; methods "
        f"on {HISTORY} windows have the last pairs only, so that their means are of other windows than the others', and their "
        "planning window is the last of the history.\n\n"
        f"### Calibrated traces (synthetic), seeds {SEEDS[0]} to {SEEDS[-1]}, 58 layers\n\nThe unit is the trace: {len(SEEDS)} "
        "seeds, of each the mean over its pairs of windows. *Survives*: serving gain over planning gain, where the interval of "
        f"the planning gain is above {LEAST_POINTS:g} points.\n\n" + markdown([*header, "survives, %"], seeds)
    )
    if not found_rows(measured, RECORDED, "hierarchical", BASE):
        return text + f"\n\n### Second recorded trace\n\nNot measured: no {HELD_OUT_TRACE.name}.\n"
    recorded = [_line(measured, RECORDED, *at, over_pairs) for at in lines]
    return (
        text
        + "\n\n### Second recorded trace\n\nRecorded from a second small model trained for this purpose, from another seed on "
        "the same text. The unit is the pair of windows; consecutive ones share a window and are not independent.\n\n"
        + markdown(header, recorded)
        + "\n"
    )


def readme(measured: Rows) -> str:
    """Return the README's short form: gaps by regime, what is left on held-out loads, what redundant slots buy."""
    return f"{regimes.readme_table(measured)}\n\n{advice(measured)}\n{redundancy.advice(measured)}"


def _patterns(trace_name: str, policy: str, method: str) -> tuple[Pattern, ...]:
    return tuple((SUITE, f"{trace_name} {policy}", name) for name in (method, BASE))


def _gain(policy: str, method: str, side: str) -> Number:
    """What a method gains on the calibrated traces over DeepSeek's algorithm, in points, with its interval over traces."""
    return Number(
        _patterns("calibrated", policy, method),
        lambda rows: interval_text(over_seeds(rows, policy, method, side).difference, 2, sign=True),
    )


def _survives(policy: str, method: str) -> Number:
    return Number(_patterns("calibrated", policy, method), lambda rows: interval_text(survival(rows, policy, method), 0))


def _survives_at_all() -> Number:
    """The same of `fast` over both policies, without intervals, for an abstract."""
    patterns = tuple(pattern for policy in POLICIES for pattern in _patterns("calibrated", policy, "fast"))
    return Number(patterns, lambda rows: span(survival(rows, policy, "fast").mean for policy in POLICIES))


def _recorded(side: str) -> Number:
    """Least and largest gain on the second recorded trace, over both policies."""
    patterns = tuple(pattern for policy in POLICIES for pattern in _patterns(RECORDED, policy, "fast-split"))
    return Number(
        patterns,
        lambda rows: span((over_pairs(rows, p, "fast-split", side).difference.mean for p in POLICIES), 1, sign=True),
    )


STUDY = Study(
    SUITE,
    job="regimes",
    about="planners on loads that nothing was tuned on: calibrated traces of other seeds, a second recorded trace",
    cells=cells,
    shapes=(WINDOWS_PLANNED, WINDOWS_BOUNDED, Shape("history", CELL | {"planning": NUMBERS, "serving": NUMBERS})),
    instance=instance,
    table=table,
    numbers={
        **{f"held-{side}-{policy}": _gain(policy, "fast-split", side) for side in ("planning", "serving") for policy in POLICIES},
        "held-serving-spread": _gain("global", "spread-replica", "serving"),
        **{f"held-survives-{policy}": _survives(policy, "fast-split") for policy in POLICIES},
        "held-survives-fast-mean": _survives_at_all(),
        **{f"held-survives-fast-{policy}": _survives(policy, "fast") for policy in POLICIES},
        "held-recorded-planning": _recorded("planning"),
        "held-recorded-serving": _recorded("serving"),
    },
    blocks={"regimes": Drawn((regimes.SUITE, redundancy.SUITE, SUITE), readme)},
)
