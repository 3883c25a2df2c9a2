"""The tables that the paper shows, from the published rows, as CSV files that typst reads."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from statistics import fmean, median, stdev

from eplb_gap.analysis.explain import STEPS
from eplb_gap.experiments.exhibits import search_claims
from eplb_gap.experiments.loads import traces
from eplb_gap.experiments.loads.traces import TRACES
from eplb_gap.experiments.measuring.proven import closed
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies import (
    decomposition,
    gaps,
    head_to_head,
    held_out,
    history_serving,
    levels,
    protocol,
    regimes,
    split_serving,
    two_slots,
)
from eplb_gap.experiments.studies.head_to_head import BASE, SETTINGS, gain
from eplb_gap.experiments.studies.numbers import interval_text
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS

Table = list[list[str]]
MINUS = re.compile(r"(?<![\w.])-(?=[\d.])")
"""A hyphen that is a sign."""

SHOWN_HISTORIES = (("recorded", 4), ("calibrated", 4), ("mix", 8), ("alternating", 8), ("mix of six", 8), ("stationary", 8))
PAIRED_FAMILIES = ("ln.6", "ln1.0", "zipf.8", *TRACES)


def _two(values: list[float], digits: int = 2) -> str:
    return f"{100 * fmean(values):.{digits}f} / {100 * max(values):.{digits}f}"


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.1f}"


def by_regime(measured: Rows) -> Table:
    """Mean gap of every balancer in every regime, with its interval over instances; balancers that agree are one line."""
    found = regimes.gaps(measured)
    lines: dict[tuple[str, ...], list[str]] = {}
    for method in regimes.ranked(found):
        cells = []
        for name in regimes.REGIMES:
            instances = found[name].get(method)
            cells.append(regimes.mean_and_median(instances) if instances else "-")
        lines.setdefault(tuple(cells), []).append(method)
    header = [f"{name} ({len(found[name][regimes.SOLVER])})" for name in regimes.REGIMES]
    return [["method", *header], *([", ".join(names), *cells] for cells, names in lines.items())]


def held(measured: Rows) -> Table:
    """Held-out calibrated traces: gap, gains over DeepSeek's algorithm with intervals and effects, and what survives."""
    body = [["policy, method", "gap, %", "planning gain", "its effect", "serving gain", "effect, serving", "survives, %"]]
    for policy, methods_of in held_out.ONE_WINDOW.items():
        for method in (name for name in (*methods_of, *held_out.ON_HISTORY) if name != BASE):
            sides = [held_out.over_seeds(measured, policy, method, side) for side in ("planning", "serving")]
            cells = [c for found in sides for c in (interval_text(found.difference, 2, sign=True), f"{found.effect:+.2f}")]
            line = [held_out.gap_text(measured, "calibrated", policy, method), *cells]
            body.append([f"{policy}, {method}", *line, held_out.survives(measured, policy, method)])
    return body


FEW_SOLVES = 2


def engines(measured: Rows) -> Table:
    """How far the exact engines get on every kind of instance; levels of two solves are left to the tables of results/."""
    found = measured.where(suite=levels.SUITE)
    body = [["k", "experts/slots/GPUs, loads", "within, %", "reached", "equal fractions", "worst gap, %", "s, median", "worst"]]
    for policy, total, gap, _ in levels.FLAGSHIP_LEVELS:
        row = found.one(instance=levels.flagship_instance(policy, total, gap))
        reached, equal = (sum(g <= limit for g in row["gap"]) for limit in (gap, 0))
        name = f"256/288/32 {policy}, calibrated, {total:,} tokens"
        line = [f"{reached}/{len(row['gap'])}", str(equal), f"{100 * max(row['gap']):.5f}"]
        body.append(["9", name, f"{100 * gap:g}", *line, _seconds(median(row["seconds"])), _seconds(max(row["seconds"]))])
    for level in levels.LEVELS:
        rows = level.rows(found, level.seeds)
        if len(rows) <= FEW_SOLVES:
            continue
        certified, seconds = [row["gap"][0] for row in rows], [row["wall_seconds"] for row in rows]
        line = [
            f"{sum(g <= level.gap for g in certified)}/{len(certified)}",
            str(sum(g == 0 for g in certified)),
            f"{100 * max(certified):.4f}",
        ]
        name = level.instance(", ".join(level.families))
        times = [_seconds(median(seconds)), _seconds(max(seconds))]
        body.append([str(level.slots // level.gpus), name, f"{100 * level.gap:g}", *line, *times])
    return [body[0], *sorted(body[1:], key=lambda cells: int(cells[0]))]


SAME_AS_VLLM = "sglang-deepseek"
"""Another text of the same algorithm in the same time: a line of the paper that says nothing new."""


def methods(measured: Rows) -> Table:
    """Planners on the flagship: time, gap on both traces, balancedness on the window served."""
    body = [["policy", "method", "ms", "recorded", "calibrated", "served, recorded", "served, calibrated"]]
    for policy in traces.POLICIES:
        timed = head_to_head.seconds(measured, policy)
        for method in sorted(timed.keys() - {SAME_AS_VLLM}, key=lambda name: timed[name]["median_seconds"]):
            planned = [_two(head_to_head.mean_gaps(measured, name, policy, method), 3) for name in TRACES]
            served = [f"{fmean(head_to_head.find(measured, name, policy, method)['serving']):.4f}" for name in TRACES]
            body.append([policy, method, f"{1000 * timed[method]['median_seconds']:.2f}", *planned, *served])
    return body


def paired(measured: Rows) -> Table:
    """Programs at two slots per GPU: mean gap to the mean load and to the proven bound; equal rows are one."""
    at = [two_slots.on_family(measured, family) for family in PAIRED_FAMILIES]
    lines: dict[tuple[str, ...], list[str]] = {}
    for name in at[0]["programs"]:
        cells = []
        for row in at:
            both = [fmean(two_slots.program_gaps(row, name, side)) for side in ("mean", "lower")]
            cells.append(" / ".join(f"{100 * value:.2f}" for value in both))
        label = str(list(SEED_PROGRAMS).index(name)) if name in SEED_PROGRAMS else "Adams, folded"
        lines.setdefault(tuple(cells), []).append(label)
    counted = [closed([row]) for row in at]
    proven = [f"{of.optimal} of {of.layers}" + (f", {of.claimed} claimed" if of.claimed else "") for of in counted]
    named = [[", ".join(sorted(labels)), *cells] for cells, labels in lines.items()]
    return [["program", *PAIRED_FAMILIES], *named, ["proven optimal", *proven]]


def survival(measured: Rows) -> Table:
    """What a map within a hundredth of a percent of optimal gains where it was planned, and where it serves."""
    body = [
        [
            "trace, policy",
            "DeepSeek",
            "fast-split",
            "gain, points",
            "DeepSeek, served",
            "fast-split, served",
            "gain served [95 %]",
        ]
    ]
    for name, policy in SETTINGS:
        cells = []
        for side in ("planning", "serving"):
            pair = [head_to_head.find(measured, name, policy, method)[side] for method in (BASE, "fast-split")]
            found = gain(measured, name, policy, "fast-split", side)
            said = interval_text(found, 2, sign=True) if side == "serving" else f"{found.mean:+.2f}"
            cells += [*(f"{fmean(values):.4f}" for values in pair), said]
        body.append([f"{name}, {policy}", *cells])
    return body


def steps(measured: Rows) -> Table:
    """The decomposition of the excess on the serving window."""
    body = [["trace, policy", *(step.label for step in STEPS), "excess"]]
    for name, policy in SETTINGS:
        found = decomposition.steps(measured, name, policy, BASE)
        totals = [sum(values) for values in zip(*found.values(), strict=True)]
        body.append([f"{name}, {policy}", *(f"{fmean(v):.2f} ± {stdev(v):.2f}" for v in (*found.values(), totals))])
    return body


def histories(measured: Rows) -> Table:
    """Sample-average placement on several kinds of traffic."""
    header = ["last", "sum", "forecast", "sample average", "against last", "against sum", "against forecast"]
    body = [["traffic, policy, windows", "pairs", *header]]
    for name, windows in SHOWN_HISTORIES:
        for policy in traces.POLICIES:
            row = history_serving.find(measured, name, policy, windows)
            means = [f"{fmean(row['served'][plan]):.4f}" for plan in ("last", "sum", "forecast", "sample-average")]
            gains = [
                interval_text(history_serving.gain(row, "sample-average", base), 1, sign=True)
                for base in ("last", "sum", "forecast")
            ]
            body.append([f"{name}, {policy}, {windows}", str(len(row["served"]["last"])), *means, *gains])
    return body


def shares(measured: Rows) -> Table:
    """The optimal token split on the serving window."""
    body = [["trace, policy", "map", "even", "past shares", "best shares", "oracle map", "closed, %"]]
    for name, policy in SETTINGS:
        for planner in split_serving.MAPS:
            served = measured.one(suite=split_serving.SUITE, trace=name, policy=policy, method=planner)["served"]
            means = [f"{fmean(served[key]):.4f}" for key in ("even", "past", "best", "oracle")]
            closed = f"{100 * split_serving.closed(measured, name, policy, planner):.1f}"
            body.append([f"{name}, {policy}", planner, *means, closed])
    return body


def metric(measured: Rows) -> Table:
    """Ten published programs as the published metric and as the GPUs see them."""
    body = [["program", "published", "expert level", "GPU level", "GPU level, serving", "gap, %, mean / worst"]]
    for generation, method in enumerate(SEED_PROGRAMS):
        at = protocol.on_windows(measured, "calibrated", method)[:-1]
        means = [fmean(row[side][level] for row in at) for side, level in SEEN]
        above = _two(gaps.gaps(measured, gaps.FLAGSHIP_CASE, method))
        body.append([f"{generation} {method}", protocol.PUBLISHED[method][0], *(f"{value:.4f}" for value in means), above])
    return body


def search(measured: Rows) -> Table:
    """What the published search said and what rows say."""
    body = [["the search said", "what we find", "evidence", "verdict"]]
    return body + [[claim.said, claim.found, claim.evidence, claim.verdict] for claim in search_claims.claims(measured)]


SEEN = (("planning", "expert"), ("planning", "gpu"), ("serving", "gpu"))

TABLES: dict[str, tuple[tuple[str, ...], Callable[[Rows], Table]]] = {
    "by_regime": (("regimes",), by_regime),
    "held_out": (("held_out",), held),
    "engines": (("levels",), engines),
    "methods": (("heuristics", "heuristic_seconds"), methods),
    "paired": (("findings",), paired),
    "survival": (("heuristics",), survival),
    "steps": (("decomposition",), steps),
    "histories": (("history",), histories),
    "shares": (("token_split",), shares),
    "metric": (("protocol", "gap"), metric),
    "search": (search_claims.SUITES, search),
}
"""The suites that a table draws from, and how, by its name."""


def render(build: Callable[[Rows], Table], measured: Rows) -> str:
    """Return a table as CSV text; minus signs are typographic, as in the paper's text."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([MINUS.sub("\u2212", cell) for cell in line] for line in build(measured))
    return text.getvalue()
