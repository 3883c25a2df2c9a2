"""What planning on past windows is worth on the next, over eight drawings of every kind of traffic (``bench serving``)."""

from __future__ import annotations

from statistics import fmean

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.traces import POLICIES
from eplb_gap.experiments.loads.traffic_mix import STATIONARY_STEPS, WINDOW_STEPS
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.measuring.statistics import Interval, mean_interval
from eplb_gap.experiments.studies import history_serving
from eplb_gap.experiments.studies.numbers import Number, interval_text, span
from eplb_gap.experiments.studies.study import Study

SUITE = "history_seeds"
SEEDS = tuple(range(9401, 9409))
"""Of traces and of drawings that nothing else has seen."""
LENGTHS = {"calibrated": 4, "mix": 8, "alternating": 8, "mix of six": 8, "stationary": 8}
"""Past windows that are planned on: eight, and four of the twelve windows that drift."""
TITLES = {
    "calibrated": "synthetic, calibrated; drifting, windows of 100 steps",
    "mix": f"recorded model, every window {WINDOW_STEPS} steps of one of three domains, in random order",
    "alternating": f"recorded model, every window {WINDOW_STEPS} steps of one of three domains, in turn",
    "mix of six": f"recorded model, every window {WINDOW_STEPS} steps of one of six domains, in random order",
    "stationary": f"recorded model, every window {STATIONARY_STEPS} steps of all domains",
}
HOW_DRAWN = (
    "Steps of a mix (2048 tokens each) are drawn at random, without replacement, from all that were recorded of the window's "
    "domain: windows of one domain differ by chance alone."
)


def cells() -> list[Cell]:
    """Return the cells: every kind of traffic, length of history, policy and seed."""
    return [
        Cell(
            SUITE,
            f"{name} {policy}",
            f"{windows} windows",
            history_serving.history_cell,
            {"traffic_name": name, "policy": policy, "windows": windows, "seed": seed},
            seed,
        )
        for name, windows in LENGTHS.items()
        for policy in POLICIES
        for seed in SEEDS
    ]


def find(measured: Rows, traffic_name: str, policy: str) -> Rows:
    """Return the rows of all seeds."""
    return measured.where(suite=SUITE, trace=traffic_name, policy=policy)


def gain(found: Rows, method: str, base: str) -> Interval:
    """Return the mean gain in points of balancedness over another plan and its 95 % interval over seeds."""
    return mean_interval([100 * (fmean(row["served"][method]) - fmean(row["served"][base])) for row in found])


ADVICE = {
    "calibrated": ("drifting", "plan on the last window"),
    "mix": ("changing at random", 'plan with `method="sample-average"`'),
    "alternating": ("alternating", "plan on the forecast that did best so far (`eplb_gap.heuristics.serving.forecast`)"),
    "stationary": ("stationary", "plan on the history: `sample-average`, or the sum"),
}
"""Kind of traffic and what to do, by the traffic that it was measured on."""
RULE = "Length of the history, everywhere: at least as many windows as there are kinds of traffic, eight here"


def advice(measured: Rows) -> str:
    """Return what to do on each kind of traffic, with gains over eight seeds, as Markdown list items."""
    lines = []
    for name, (kind, what) in ADVICE.items():
        gains = []
        for policy in POLICIES:
            found = find(measured, name, policy)
            last, both = gain(found, "sample-average", "last"), gain(found, "forecast", "sample-average")
            said = f"{interval_text(last, 1, sign=True)} against the last window"
            gains.append(f"{policy} {said}, the forecast {interval_text(both, 1, sign=True)} against it")
        lines.append(
            f"* *{kind}* ({TITLES[name]}): {what}; `sample-average` of {LENGTHS[name]} windows, points: {'; '.join(gains)}."
        )
    return "\n".join(lines) + f"\n* {RULE}; where loads drift, the last window alone."


def table(measured: Rows) -> str:
    """Return serving balancedness and gains over seeds as Markdown."""
    body = []
    for name, windows in LENGTHS.items():
        for policy in POLICIES:
            found = find(measured, name, policy)
            served = [f"{fmean(fmean(row['served'][plan]) for row in found):.4f}" for plan in history_serving.PLANS]
            against = [interval_text(gain(found, "sample-average", base), 1, sign=True) for base in ("last", "sum", "forecast")]
            body.append([f"{name}, {policy}, {windows}", *served, *against])
    kinds = "; ".join(f"{name}: {title}" for name, title in TITLES.items())
    return (
        f"## Planning on a history, over {len(SEEDS)} seeds\n\nAs above, over drawings of seeds {SEEDS[0]} to {SEEDS[-1]}, which "
        f"nothing else has seen: GPU balancedness on the window after the history, and gains of `sample-average` in points, with "
        f"95 % intervals over seeds. {RULE}; four of the twelve drifting windows. {HOW_DRAWN} Traffic: {kinds}.\n\n"
        + markdown(
            ["traffic, policy, windows", *history_serving.PLANS, *(f"against {base}" for base in ("last", "sum", "forecast"))],
            body,
        )
        + "\n"
    )


def _gains(name: str, method: str, base: str) -> Number:
    """Least and largest gain of a plan over another, both policies."""
    patterns = tuple((SUITE, f"{name} {policy}", "*") for policy in POLICIES)
    return Number(
        patterns, lambda found: span((gain(find(found, name, policy), method, base).mean for policy in POLICIES), 1, sign=True)
    )


STUDY = Study(
    SUITE,
    job="serving",
    about="sample-average placement, sums, the last window and forecasts on eight drawings of five kinds of traffic",
    cells=cells,
    shapes=history_serving.STUDY.shapes,
    instance=history_serving.instance,
    table=table,
    numbers={
        "seeds-mix-last": _gains("mix", "sample-average", "last"),
        "seeds-alternating-forecast": _gains("alternating", "forecast", "sample-average"),
        "seeds-stationary-last": _gains("stationary", "sample-average", "last"),
        "seeds-drift-last": _gains("calibrated", "sample-average", "last"),
    },
)
