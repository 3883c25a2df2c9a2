"""Every measured number that the paper's text states, from the published rows: name, value, and the rows it came from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from statistics import fmean, median
from typing import Any

import numpy as np

from eplb_gap.experiments.loads.traces import TRACES
from eplb_gap.experiments.measuring.rows import Row, case_bounds, layer_gaps, pick, protocol_rows
from eplb_gap.experiments.measuring.statistics import Interval, paired
from eplb_gap.experiments.studies import (
    decomposition,
    head_to_head,
    held_out,
    history_serving,
    recommendations,
    redundancy,
    regimes,
    shape_levels,
    split_serving,
)
from eplb_gap.experiments.studies import migration as migration_front
from eplb_gap.experiments.studies.sample_average_gaps import gathered
from eplb_gap.heuristics.programs.recommendations import RECOMMENDATIONS
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS
from eplb_gap.problem.metrics import optimality_gap

Pattern = tuple[str, str, str]
"""Suite, instance and method of rows; in the latter two ``*`` stands for anything."""

SCRIPT = "experiments/exhibits/paper_numbers.py"
BASE = "initial_program"
POLICIES = ("hierarchical", "global")
SETTINGS = [(name, policy) for name in TRACES for policy in POLICIES]


@dataclass(frozen=True)
class Number:
    """A number of the paper.

    Parameters
    ----------
    patterns : tuple of Pattern
        The rows it is computed from; the computation sees no others.
    compute : callable
        From those rows to the text that the paper prints.
    """

    patterns: tuple[Pattern, ...]
    compute: Callable[[list[Row]], str]


def chosen(measured: Iterable[Row], patterns: Iterable[Pattern]) -> list[Row]:
    """Return the rows that match one of the patterns.

    Raises
    ------
    LookupError
        If a pattern matches none.
    """
    wanted, found = list(patterns), list(measured)
    for pattern in wanted:
        if not any(matches(row, [pattern]) for row in found):
            raise LookupError(f"results/ holds no row of {' | '.join(pattern)}")
    return [row for row in found if matches(row, wanted)]


def matches(row: Row, patterns: Iterable[Pattern]) -> bool:
    """Return whether a row matches one of the patterns."""
    return any(
        row["suite"] == suite and fnmatchcase(row["instance"], instance) and fnmatchcase(row["method"], method)
        for suite, instance, method in patterns
    )


def _percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f}"


def _span(values: Iterable[float], digits: int = 0, sign: bool = False) -> str:
    """Return least to largest as text; one number where both print alike."""
    found = list(values)
    low, high = (_rounded(value, digits, sign) for value in (min(found), max(found)))
    return low if low == high else f"{low} to {high}"


def _rounded(value: float, digits: int, sign: bool) -> str:
    """Return a number as text with a typographic minus, and none before what rounds to zero."""
    return f"{value:{'+' if sign else ''}z.{digits}f}".replace("-", "\u2212")


def _gaps(trace: str, policy: str, method: str, of: Callable[[list[float]], float]) -> Number:
    patterns = tuple(("heuristics", f"{trace} {policy}", name) for name in (method, "auto"))
    return Number(patterns, lambda rows: _percent(of(head_to_head.mean_gaps(rows, trace, policy, method))))


def _worst_everywhere(method: str) -> Number:
    patterns = tuple(("heuristics", f"{trace} {policy}", name) for trace, policy in SETTINGS for name in (method, "auto"))
    return Number(patterns, lambda rows: _percent(max(max(head_to_head.mean_gaps(rows, *at, method)) for at in SETTINGS), 3))


def _milliseconds(policy: str, method: str) -> Number:
    return Number((("heuristic_seconds", policy, method),), lambda rows: f"{1000 * rows[0]['median_seconds']:.1f}")


def gain(measured: list[Row], trace: str, policy: str, method: str, side: str) -> Interval:
    """Return what a method gains over DeepSeek's algorithm in points of GPU balancedness, with a 95 % bootstrap interval.

    Parameters
    ----------
    measured : list of Row
    trace, policy, method : str
    side : str
        "planning" or "serving". The pairs of windows are resampled as if independent, which consecutive ones are not.
    """
    ours, base = (pick(measured, "heuristics", f"{trace} {policy}", name)[side] for name in (method, BASE))
    return paired(ours, base).difference.scaled(100)


def _gains(method: str, side: str, digits: int) -> Number:
    patterns = tuple(("heuristics", f"{trace} {policy}", name) for trace, policy in SETTINGS for name in (method, BASE))
    return Number(patterns, lambda rows: _span((gain(rows, *at, method, side)[0] for at in SETTINGS), digits, sign=True))


def _closed(planner: str) -> Number:
    patterns = tuple(("token_split", f"{trace} {policy}", name) for trace, policy in SETTINGS for name in {planner, "fast"})
    return Number(tuple(sorted(patterns)), lambda rows: _span(100 * split_serving.closed(rows, *at, planner) for at in SETTINGS))


def _past_closed(rows: list[Row]) -> str:
    served = [row["served"] for row in rows]
    return _percent(max((fmean(s["past"]) - fmean(s["even"])) / (fmean(s["oracle"]) - fmean(s["even"])) for s in served), 1)


def _history(traffic: str, windows: int, base: str, policies: tuple[str, ...] = POLICIES) -> Number:
    patterns = tuple(("history", f"{traffic} {policy}", f"{windows} windows") for policy in policies)

    def compute(rows: list[Row]) -> str:
        gains = [history_serving.gain(row, "sample-average", base)[0] for row in rows]
        return _span(gains, 1, sign=True)

    return Number(patterns, compute)


def _pairs(traffic: str, windows: int) -> Number:
    pattern = ("history", f"{traffic} hierarchical", f"{windows} windows")
    return Number((pattern,), lambda rows: str(len(rows[0]["served"]["last"])))


def _paired(family: str, method: str, side: str) -> Number:
    """The mean gap at two slots per GPU, to the mean load or to the proven bound."""

    def compute(rows: list[Row]) -> str:
        upper, lower = rows[0]["programs"][method], rows[0][side]
        return _percent(fmean(optimality_gap(Fraction(u), Fraction(v)) for u, v in zip(upper, lower, strict=True)))

    return Number((("findings", f"256/288/144 {family}", "auto"),), compute)


def _price(trace: str) -> Number:
    """What the hierarchy costs; both ends of the interval that the certified bounds leave print alike."""

    def compute(rows: list[Row]) -> str:
        total = {
            (policy, side): sum(Fraction(v) for row in rows if row["method"] == policy for v in row[side])
            for policy in POLICIES
            for side in ("lower", "upper")
        }
        ends = [total["hierarchical", a] / total["global", b] - 1 for a, b in (("lower", "upper"), ("upper", "lower"))]
        return _span((100 * float(end) for end in ends), 1)

    return Number(tuple(("findings", f"{trace}-*", policy) for policy in POLICIES), compute)


def _step(trace: str, policy: str, key: str | None, of: Callable[[list[float]], float] = fmean) -> Number:
    """A step of the decomposition of DeepSeek's excess, or the excess itself."""

    def compute(rows: list[Row]) -> str:
        found = decomposition.steps(rows, trace, policy, BASE)
        return f"{of(found[key] if key else [sum(v) for v in zip(*found.values(), strict=True)]):.1f}"

    return Number((("decomposition", f"{trace} {policy} *", BASE),), compute)


def _level(instance: str, digits: int) -> Number:
    return Number((("levels", instance, "auto"),), lambda rows: f"{1000 * median(rows[0]['seconds']):.{digits}f}")


def _profile_optimal(method: str) -> Number:
    return Number(
        (("profile", "*", method),),
        lambda rows: f"{sum(row['status'] == ['optimal'] for row in rows)} of {len(rows)}",
    )


def _profile_gap(instance: str) -> Number:
    return Number((("profile", instance, "auto"),), lambda rows: _percent(fmean(row["gap"][0] for row in rows)))


def _largest_proven(rows: list[Row]) -> str:
    return str(max(row["deployment"]["num_slots"] for row in rows if row["status"] == ["optimal"]))


def _survival_zero(rows: list[Row]) -> str:
    ends = [gain(rows, *at, "fast-split", "serving")[1:] for at in SETTINGS]
    return str(sum(low <= 0 <= high for low, high in ends))


def _example_gap(method: str) -> Number:
    def compute(rows: list[Row]) -> str:
        return _percent(max(layer_gaps(pick(rows, "gap", "flashlb", method), case_bounds(rows, "flashlb"))))

    return Number((("gap", "flashlb", "*"),), compute)


def _tiny(of: Callable[[list[float]], str]) -> Number:
    return Number((("findings", "tiny", "oracle"),), lambda rows: of(rows[0]["excess"]))


def _shape(instance: str, method: str, of: Callable[[list[float]], float], digits: int = 1) -> Number:
    return Number((("shapes", instance, "fast"),), lambda rows: _percent(of(shape_levels.gaps(rows[0], method)), digits))


def _distinct(seen: Callable[[Row], Any]) -> Number:
    """How many of the ten programs differ, by what is seen of each, on the planning windows of both traces."""

    def compute(rows: list[Row]) -> str:
        values = [tuple(seen(row) for trace in TRACES for row in protocol_rows(rows, trace, method)) for method in SEED_PROGRAMS]
        return str(len(set(values)))

    return Number(tuple(("protocol", "*", method) for method in SEED_PROGRAMS), compute)


def _protocol(trace: str, method: str, side: str, metric: str) -> Number:
    return Number(
        (("protocol", f"{trace}-*", method),),
        lambda rows: f"{fmean(row[side][metric] for row in protocol_rows(rows, trace, method)[:-1]):.4f}",
    )


def _control(rows: list[Row]) -> str:
    return f"{sum(row['status'] == 'legal' for row in rows)} of {len(rows)}"


def _published_gap(method: str, of: Callable[[list[float]], float]) -> Number:
    def compute(rows: list[Row]) -> str:
        case = "flagship-calibrated"
        return _percent(of(layer_gaps(pick(rows, "gap", case, method), case_bounds(rows, case))), 1)

    return Number((("gap", "flagship-calibrated", "auto"), ("gap", "flagship-calibrated", method)), compute)


def _flattered(rows: list[Row]) -> str:
    return _span((100 * fmean(np.array(row["of_window"]) - np.array(row["by_step"])) for row in rows), 1)


def _total(key: str) -> Callable[[list[Row]], str]:
    return lambda rows: str(sum(row[key] if isinstance(row[key], int) else len(row[key]) for row in rows))


def _regime(name: str, method: str) -> Number:
    """The mean gap in a regime with its interval over instances."""

    def compute(rows: list[Row]) -> str:
        return interval_text(regimes.mean_percent(regimes.gaps(rows)[name][method]), 2)

    return Number((("regimes", "*", method), ("regimes", "*", "auto")), compute)


def _regimes_proven(rows: list[Row]) -> str:
    status = [status for row in rows for status in row["status"]]
    return f"{status.count('optimal'):,} of {len(status):,}"


def interval_text(found: Interval, digits: int, sign: bool = False) -> str:
    """Return a mean with its interval in brackets; only the mean where both ends print alike."""
    mean, low, high = (_rounded(value, digits, sign) for value in found)
    return mean if low == high else f"{mean} [{low}, {high}]"


def _held_out(policy: str, method: str, side: str) -> Number:
    """What a method gains on held-out calibrated traces over DeepSeek's algorithm, in points, with its interval over traces."""
    patterns = tuple(("held_out", f"calibrated {policy}", name) for name in (method, BASE))
    return Number(patterns, lambda rows: interval_text(held_out.over_seeds(rows, policy, method, side).difference, 2, sign=True))


def _survives(policy: str, method: str) -> Number:
    patterns = tuple(("held_out", f"calibrated {policy}", name) for name in (method, BASE))
    return Number(patterns, lambda rows: interval_text(held_out.survival(rows, policy, method), 0))


def _held_out_recorded(side: str) -> Number:
    """Least and largest gain on the second recorded trace, over both policies."""
    patterns = tuple(("held_out", f"recorded {policy}", name) for policy in POLICIES for name in ("fast-split", BASE))
    return Number(
        patterns,
        lambda rows: _span((held_out.over_pairs(rows, p, "fast-split", side).difference.mean for p in POLICIES), 1, sign=True),
    )


def _price_of_slots(trace: str, policy: str, gpus: int, redundant: int) -> Number:
    """What fewer than 64 redundant slots cost on the window planned on, as an interval of proven bounds."""
    names = [redundancy.instance(trace, policy, gpus, count) for count in (redundant, redundancy.MOST)]
    return Number(
        tuple(("redundancy", name, "*") for name in names),
        lambda rows: _span(redundancy.price(rows, trace, policy, gpus, redundant), 1),
    )


def _served_price_of_slots(trace: str, policy: str, gpus: int, redundant: int) -> Number:
    names = [redundancy.instance(trace, policy, gpus, count) for count in (redundant, redundancy.MOST)]
    return Number(
        tuple(("redundancy", name, "auto") for name in names),
        lambda rows: interval_text(redundancy.served_price(rows, trace, policy, gpus, redundant), 1),
    )


def _recommended(side: str, said: str | None) -> Number:
    """Of the recommendations against the programs they would change, on both traces: how many get a verdict, or all."""

    def compute(rows: list[Row]) -> str:
        first = [
            found
            for name in TRACES
            for found in recommendations.comparisons(rows, name)
            if found.base == RECOMMENDATIONS[found.method].bases[0]
        ]
        verdicts = [recommendations.verdict(getattr(found, side), side == "planned") for found in first]
        return str(len(verdicts) if said is None else verdicts.count(said))

    return Number((("recommendations", "*", "*"),), compute)


_, TWO, FEW, MANY, HIERARCHICAL = regimes.REGIMES

NUMBERS: dict[str, Number] = {
    # Regime by regime.
    "regime-two": _regime(TWO, BASE),
    "regime-few": _regime(FEW, BASE),
    "regime-many": _regime(MANY, BASE),
    "regime-hierarchical": _regime(HIERARCHICAL, BASE),
    "regime-two-split": _regime(TWO, "fast-split"),
    "regime-few-split": _regime(FEW, "fast-split"),
    "regime-many-split": _regime(MANY, "fast-split"),
    "regime-hierarchical-split": _regime(HIERARCHICAL, "fast-split"),
    "regime-few-certified": _regime(FEW, "auto"),
    "regime-two-certified": _regime(TWO, "auto"),
    "regime-two-hamilton": _regime(TWO, "proportional_quota_replication"),
    "regime-instances": Number((("regimes", "*", "auto"),), lambda rows: str(len(rows))),
    "regime-proven": Number((("regimes", "*", "auto"),), _regimes_proven),
    # Held-out loads, redundant slots.
    "held-planning-hierarchical": _held_out("hierarchical", "fast-split", "planning"),
    "held-planning-global": _held_out("global", "fast-split", "planning"),
    "held-serving-hierarchical": _held_out("hierarchical", "fast-split", "serving"),
    "held-serving-global": _held_out("global", "fast-split", "serving"),
    "held-survives-hierarchical": _survives("hierarchical", "fast-split"),
    "held-survives-global": _survives("global", "fast-split"),
    "held-serving-spread": _held_out("global", "spread-replica", "serving"),
    "held-survives-fast-hierarchical": _survives("hierarchical", "fast"),
    "held-survives-fast-global": _survives("global", "fast"),
    "held-recorded-planning": _held_out_recorded("planning"),
    "held-recorded-serving": _held_out_recorded("serving"),
    "slots-planning": _price_of_slots("calibrated", "global", 32, 0),
    "slots-planning-half": _price_of_slots("calibrated", "global", 32, 32),
    "slots-planning-wide": _price_of_slots("calibrated", "global", 64, 0),
    "slots-planning-narrow": _price_of_slots("calibrated", "global", 8, 0),
    "slots-serving": _served_price_of_slots("calibrated", "global", 32, 0),
    "slots-serving-half": _served_price_of_slots("calibrated", "global", 32, 32),
    "slots-serving-wide": _served_price_of_slots("calibrated", "global", 64, 0),
    "certified-gap": Number(
        (("protocol", "*", "auto"),), lambda rows: f"{100 * max(row['parameters']['target_gap'] for row in rows):g}"
    ),
    # Distance from optimal.
    **{f"gap-{t}-{p}": _gaps(t, p, BASE, fmean) for t, p in SETTINGS},
    **{f"worst-{t}-{p}": _gaps(t, p, BASE, max) for t, p in SETTINGS},
    "gap-openevolve": _gaps("calibrated", "hierarchical", "openevolve", fmean),
    "gap-fast": _gaps("calibrated", "hierarchical", "fast", fmean),
    "worst-split": _worst_everywhere("fast-split"),
    "ms-split-hierarchical": _milliseconds("hierarchical", "fast-split"),
    "ms-split-global": _milliseconds("global", "fast-split"),
    "ms-base-hierarchical": _milliseconds("hierarchical", BASE),
    "flashlb-gap": _example_gap(BASE),
    "flashlb-hamilton": _example_gap("proportional_quota_replication"),
    "paired-ln06": _paired("ln.6", BASE, "lower"),
    "paired-ln06-mean": _paired("ln.6", BASE, "mean"),
    "paired-zipf-mean": _paired("zipf.8", BASE, "mean"),
    "paired-zipf": _paired("zipf.8", BASE, "lower"),
    "paired-recorded": _paired("recorded", BASE, "lower"),
    "paired-hamilton": _paired("zipf.8", "proportional_quota_replication", "lower"),
    "price-recorded": _price("recorded"),
    "price-calibrated": _price("calibrated"),
    "tiny-instances": _tiny(lambda excess: str(len(excess))),
    "tiny-other": _tiny(lambda excess: str(sum(value > 0 for value in excess))),
    "tiny-worst": _tiny(lambda excess: _percent(max(excess), 0)),
    "hot-lpt": _shape("256/288/32 hierarchical zipf1.2", "fast-lpt", fmean),
    "hot-lpt-worst": _shape("256/288/32 hierarchical zipf1.2", "fast-lpt", max),
    "hot-fast-worst": _shape("256/288/32 hierarchical zipf1.2", "fast", max),
    "hot-three": _shape("64/96/32 zipf1.2", "fast", fmean, 2),
    # What a proof costs.
    "ms-certify-hierarchical": _level("flagship hierarchical 1e+06 0.0001", 0),
    "ms-certify-global": _level("flagship global 1e+06 0.0001", 0),
    "ms-certify-fine": _level("flagship hierarchical 1e+08 1e-06", 0),
    "profile-auto": _profile_optimal("auto"),
    "profile-milp": _profile_optimal("milp"),
    "profile-cpsat": _profile_optimal("cpsat"),
    "profile-largest": Number((("profile", "*", "milp*"), ("profile", "*", "cpsat")), _largest_proven),
    "profile-three": _profile_gap("128/192/64"),
    "agreement-instances": Number((("agreement", "*", "*"),), _total("instances")),
    "agreement-contradictions": Number((("agreement", "*", "*"),), _total("disagreements")),
    # What survives.
    "planning-gain": _gains("fast-split", "planning", 1),
    "serving-gain": _gains("fast-split", "serving", 1),
    "survival-zero": Number(
        tuple(("heuristics", f"{t} {p}", m) for t, p in SETTINGS for m in ("fast-split", BASE)), _survival_zero
    ),
    "flattered": Number((("steps", "*", "*"),), _flattered),
    **{f"excess-{t}-{p}": _step(t, p, None) for t, p in SETTINGS},
    "step-hierarchy": _step("calibrated", "hierarchical", "hierarchy"),
    "step-packing": _step("calibrated", "hierarchical", "packing"),
    "step-assignment": _step("calibrated", "hierarchical", "assignment"),
    "step-assignment-sd": _step("calibrated", "hierarchical", "assignment", lambda values: float(np.std(values, ddof=1))),
    "step-misled": _step("calibrated", "hierarchical", "history", lambda values: abs(fmean(values))),
    # What reduces the rest.
    "closed-fast": _closed("fast"),
    "closed-ring": _closed("ring"),
    "closed-past": Number(tuple(("token_split", f"{t} {p}", "*") for t, p in SETTINGS), _past_closed),
    "mix-last": _history("mix", 8, "last"),
    "mix-sum": _history("mix", 8, "sum"),
    "mix-pairs": _pairs("mix", 8),
    "stationary-last": _history("stationary", 8, "last"),
    "drift-last": _history("calibrated", 4, "last"),
    "drift-pairs": _pairs("calibrated", 4),
    "fewest-pairs": _pairs("recorded", 8),
    "alternating-short": _history("alternating", 2, "sum"),
    "migration-kept": Number((("migration", "*", "10 %"),), lambda rows: _percent(min(map(migration_front.kept_part, rows)), 0)),
    "migration-windows": Number(
        (("migration", "calibrated *", "10 %"), ("migration", "recorded *", "10 %")),
        lambda rows: _span(len(row["new"]) for row in rows),
    ),
    "sample-instances": Number((("sample_average", "*", "*"),), lambda rows: str(len(gathered(rows, "gaps")))),
    "sample-optimal": Number((("sample_average", "*", "*"),), lambda rows: str(sum(gap == 0 for gap in gathered(rows, "gaps")))),
    # What the metric sees.
    "distinct-expert": _distinct(lambda row: row["planning"]["expert"]),
    "distinct-makespans": _distinct(lambda row: tuple(row["upper"])),
    "snake-expert": _protocol("calibrated", "eplb_snake_pipeline", "planning", "expert"),
    "base-expert": _protocol("calibrated", BASE, "planning", "expert"),
    "snake-gpu": _protocol("calibrated", "eplb_snake_pipeline", "planning", "gpu"),
    "base-gpu": _protocol("calibrated", BASE, "planning", "gpu"),
    "unchecked-gap": _published_gap("local_swap_refine_in_packing", fmean),
    "unchecked-worst": _published_gap("local_swap_refine_in_packing", max),
    "unchecked-expert": _protocol("calibrated", "local_swap_refine_in_packing", "planning", "expert"),
    "recommended": _recommended("planned", None),
    "recommended-helps-planning": _recommended("planned", "helps"),
    "recommended-hurts-planning": _recommended("planned", "hurts"),
    "recommended-helps-serving": _recommended("served", "helps"),
    "recommended-hurts-serving": _recommended("served", "hurts"),
    "control-legal": Number((("protocol", "*", "defective_snake"),), _control),
}


SUITES = tuple(sorted({suite for number in NUMBERS.values() for suite, _, _ in number.patterns}))


def numbers(measured: list[Row]) -> dict[str, dict[str, Any]]:
    """Return every number of the paper with the rows it came from."""
    return {
        name: {
            "value": number.compute(chosen(measured, number.patterns)),
            "from": [" | ".join(pattern) for pattern in number.patterns],
            "script": SCRIPT,
        }
        for name, number in sorted(NUMBERS.items())
    }


def render(measured: list[Row]) -> str:
    """Return the numbers as JSON that typst reads."""
    return json.dumps(numbers(measured), indent=1, ensure_ascii=False) + "\n"
