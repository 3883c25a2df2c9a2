"""What maps planned on a public model's past serve next, for who has the files (part of ``eplb-gap bench serving``)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import permutations
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy import stats

from eplb_gap import heuristics
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.public_counts import VARIABLE
from eplb_gap.experiments.loads.public_series import public_series
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, NUMBERS, WINDOWS_BOUNDED, WINDOWS_PLANNED, Shape
from eplb_gap.experiments.measuring.rows import Fields, Row, Rows
from eplb_gap.experiments.measuring.solve_cells import bounded_row, planned_row, proof_fields
from eplb_gap.experiments.measuring.statistics import Interval
from eplb_gap.experiments.studies.numbers import Number, interval_text, span
from eplb_gap.experiments.studies.public_gaps import BASE, DEPLOYMENTS, SWAPS
from eplb_gap.experiments.studies.public_levels import NOT_GIVEN
from eplb_gap.experiments.studies.study import Drawn, Study
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.digest import array_sha256
from eplb_gap.problem.metrics import balancedness_gpu
from eplb_gap.problem.validation import verify

SUITE = "public_serving"
DECODED, *BY_DOMAIN = ("GPT-OSS-20B", "OLMoE-1B-7B", "Mixtral-8x7B")
SERIES = tuple(DEPLOYMENTS[DECODED].values())
MORE_SLOTS = tuple(Deployment(32, slots, 16) for slots in (32, 48, 64, 80))
"""Redundancy on the same GPUs: none, half as many slots again, twice and two and a half times."""
BY_DOMAINS = {
    "OLMoE-1B-7B": (*DEPLOYMENTS["OLMoE-1B-7B"].values(), Deployment(64, 64, 32), Deployment(64, 128, 32)),
    "Mixtral-8x7B": (*DEPLOYMENTS["Mixtral-8x7B"].values(), Deployment(8, 8, 4), Deployment(8, 16, 4)),
}
METHODS = (BASE, SWAPS, "fast", "fast-split")
MERGED = (2, 4, 8)
FIRST = 9
"""Window, from 0, that is the first to be served in every comparison: every history has its windows by then."""
GAP, SECONDS = 1e-3, 1.5
"""Of a window's bound."""
FEWEST = 8
"""Pairs of windows below which no interval is printed."""


def _not_given(kind: str, **fields: object) -> Fields:
    return {"kind": kind, "hash": "", "sha256": "", "parameters": {}, "status": NOT_GIVEN, **fields}


def planned_cell(shape: Deployment, method: str, folder: str | None) -> Fields:
    """Plan on every window but the last and serve the next; without a folder say that there is none."""
    if folder is None:
        return _not_given("heuristic", upper=[], duplicates=[], planning=[], serving=[])
    loads = public_series(DECODED, Path(folder)).loads
    return planned_row(loads, shape, method) | {"sha256": array_sha256(loads)}


def bound_cell(shape: Deployment, folder: str | None) -> Fields:
    """Bound the windows from the one before ``FIRST`` on."""
    if folder is None:
        return _not_given("solver", upper=[], lower=[], **proof_fields([]), limit=[], planning=[], serving=[])
    loads = public_series(DECODED, Path(folder)).loads
    return bounded_row(loads[FIRST - 1 :], shape, GAP, SECONDS) | {"sha256": array_sha256(loads)}


def history_cell(shape: Deployment, windows: int, folder: str | None) -> Fields:
    """Plan on the sum of past windows and on their sample average; serve the next, from ``FIRST`` on."""
    if folder is None:
        return _not_given("history", served={})
    loads = public_series(DECODED, Path(folder)).loads
    served: dict[str, list[float]] = {"fast": [], "sample-average": []}
    for serve in range(FIRST, len(loads)):
        for method, values in served.items():
            placement = heuristics.rebalance(loads[serve - windows : serve], shape, method)
            verify(placement, loads[serve], shape)
            values.append(balancedness_gpu(placement, loads[serve], shape.num_gpus))
    return {
        "kind": "history",
        "hash": rows.instance_hash(loads, shape),
        "sha256": array_sha256(loads),
        "parameters": {"windows": windows, "first": FIRST},
        "status": "legal",
        "served": served,
    }


def domain_cell(model: str, shape: Deployment, method: str, folder: str | None) -> Fields:
    """Plan on every domain; serve that domain and each of the others."""
    if folder is None:
        return _not_given("domains", own=[], others=[])
    loads = public_series(model, Path(folder)).loads
    placements = [heuristics.rebalance(domain, shape, method) for domain in loads]
    for placement, domain in zip(placements, loads, strict=True):
        verify(placement, domain, shape)
    pairs = permutations(range(len(loads)), 2)
    return {
        "kind": "domains",
        "hash": rows.instance_hash(loads, shape),
        "sha256": array_sha256(loads),
        "parameters": {"pairs": "planned on, served: in the order of itertools.permutations"},
        "status": "legal",
        "own": [balancedness_gpu(map_, domain, shape.num_gpus) for map_, domain in zip(placements, loads, strict=True)],
        "others": [balancedness_gpu(placements[plan], loads[serve], shape.num_gpus) for plan, serve in pairs],
    }


def _named(model: str, shape: Deployment) -> str:
    return f"{model} {shape.num_experts}/{shape.num_slots}/{shape.num_gpus}"


def cells() -> list[Cell]:
    """Return the cells; the folder is the one that the environment names."""
    folder = os.environ.get(VARIABLE)
    found = []
    for shape in dict.fromkeys((*SERIES, *MORE_SLOTS)):
        key, at = _named(DECODED, shape), {"shape": shape, "folder": folder}
        methods = METHODS if shape in SERIES else (BASE, "fast")
        found += [Cell(SUITE, key, method, planned_cell, {**at, "method": method}) for method in methods]
        if shape in SERIES:
            found.append(Cell(SUITE, key, "auto", bound_cell, at))
            found += [Cell(SUITE, key, f"{windows} windows", history_cell, {**at, "windows": windows}) for windows in MERGED]
    for model, shapes in BY_DOMAINS.items():
        for shape in shapes:
            at = {"model": model, "shape": shape, "folder": folder}
            found += [Cell(SUITE, _named(model, shape), m, domain_cell, {**at, "method": m}) for m in (BASE, "fast")]
    return found


def find(measured: Rows, model: str, shape: Deployment, method: str) -> Row:
    """Return the row of a model, a deployment and a method."""
    return measured.one(suite=SUITE, instance=_named(model, shape), method=method)


def given(measured: Rows) -> bool:
    """Return whether every row of the suite was measured."""
    return all(row["status"] != NOT_GIVEN for row in measured.where(suite=SUITE))


def t_interval(values: list[float]) -> Interval:
    """Return the mean and its 95 % t interval; the values are taken as independent.

    Raises
    ------
    ValueError
        If there are fewer than ``FEWEST``.
    """
    if len(values) < FEWEST:
        raise ValueError(f"there are {len(values)} values; an interval needs {FEWEST}")
    mean, half = fmean(values), stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return Interval(mean, mean - half, mean + half)


def from_first(row: Row, side: str) -> list[float]:
    """Return the balancedness of a row of all pairs of windows on those whose serving window is ``FIRST`` or later."""
    values: list[float] = row[side][FIRST - 1 :]
    return values


def gain(ours: list[float], base: list[float]) -> Interval:
    """Return the mean difference of paired balancedness in points, with its t interval."""
    return t_interval([100 * (one - other) for one, other in zip(ours, base, strict=True)])


def lag_one(ours: list[float], base: list[float]) -> str:
    """Return the correlation of a pair of windows' difference with the next pair's as text; "-" where all are equal."""
    apart = np.subtract(ours, base)
    return f"{np.corrcoef(apart[1:], apart[:-1])[0, 1]:+.2f}" if np.ptp(apart) else "-"


def losses(measured: Rows, shape: Deployment) -> tuple[float, float, float, float]:
    """Return points of balancedness that DeepSeek's algorithm loses on decode traffic, means over windows served and bounded.

    They are lost to what no map exceeds, between that and the best map found, to the heuristic, and to forecasting.
    """
    base, best = (find(measured, DECODED, shape, method) for method in (BASE, "auto"))
    fast = find(measured, DECODED, shape, "fast")
    limit = best["limit"][1:]
    reached = [max(pair) for pair in zip(best["planning"][1:], fast["planning"][FIRST:], strict=True)]
    replanned, served = fmean(base["planning"][FIRST:]), fmean(base["serving"][FIRST - 1 : -1])
    parts = 1 - fmean(limit), fmean(limit) - fmean(reached), fmean(reached) - replanned, replanned - served
    return 100 * parts[0], 100 * parts[1], 100 * parts[2], 100 * parts[3]


def loss_table(measured: Rows) -> str:
    """Return where DeepSeek's algorithm loses balance on decode traffic, a line per deployment."""
    if not given(measured):
        return f"{NOT_GIVEN[0].upper()}{NOT_GIVEN[1:]}: `{VARIABLE}` names no folder."
    body = []
    for shape in SERIES:
        proven, between, heuristic, forecast = losses(measured, shape)
        serving = 100 - (proven + between + heuristic + forecast)
        share = 100 * forecast / (100 - serving)
        body.append(
            [
                _named(DECODED, shape),
                f"{shape.num_slots // shape.num_gpus}",
                f"{serving / 100:.4f}",
                f"{proven:.2f} to {proven + between:.2f}",
                f"{heuristic:.2f} to {heuristic + between:.2f}",
                f"{forecast:.2f}",
                f"{share:.0f}",
            ]
        )
    return markdown(
        [
            "experts/slots/GPUs",
            "slots per GPU",
            "serving balancedness",
            "lost to integrality, points",
            "lost to the heuristic",
            "lost to forecasting",
            "forecasting's share, %",
        ],
        body,
    )


def _series(measured: Rows) -> str:
    body = []
    for shape in SERIES:
        base = find(measured, DECODED, shape, BASE)
        planning, serving = (from_first(base, side) for side in ("planning", "serving"))
        for method in METHODS:
            row = find(measured, DECODED, shape, method)
            ours = {side: from_first(row, side) for side in ("planning", "serving")}
            gains = [
                *(
                    interval_text(gain(ours[side], of), 1, sign=True)
                    for side, of in (("planning", planning), ("serving", serving))
                ),
                lag_one(ours["serving"], serving),
                f"{100 * (fmean(row['serving']) - fmean(base['serving'])):+.1f}",
            ]
            means = [f"{fmean(ours[side]):.4f}" for side in ("planning", "serving")]
            body.append([f"{_named('', shape).strip()}, `{method}`", *means, *(gains if method != BASE else ["-"] * 4)])
        for windows in MERGED:
            for method, values in find(measured, DECODED, shape, f"{windows} windows")["served"].items():
                title = f"`fast` on the sum of {windows}" if method == "fast" else f"`{method}` of {windows}"
                line = ["-", f"{fmean(values):.4f}", "-", interval_text(gain(values, serving), 1, sign=True)]
                line += [lag_one(values, serving), "-"]
                body.append([f"{_named('', shape).strip()}, {title}", *line])
    header = [
        "experts/slots/GPUs, plan",
        "planning",
        "serving",
        "planning gain, points",
        "serving gain, points",
        "lag-one correlation",
        "serving gain over all 31 pairs",
    ]
    return markdown(header, body)


def _redundancy(measured: Rows) -> str:
    body = []
    for method in (BASE, "fast"):
        none = from_first(find(measured, DECODED, MORE_SLOTS[0], method), "serving")
        for shape in MORE_SLOTS:
            row = find(measured, DECODED, shape, method)
            served = from_first(row, "serving")
            base = from_first(find(measured, DECODED, shape, BASE), "serving")
            body.append(
                [
                    f"{_named('', shape).strip()}, `{method}`",
                    f"{fmean(from_first(row, 'planning')):.4f}",
                    f"{fmean(served):.4f}",
                    interval_text(gain(served, none), 1, sign=True) if shape != MORE_SLOTS[0] else "-",
                    interval_text(gain(served, base), 1, sign=True) if method != BASE else "-",
                ]
            )
    header = [
        "experts/slots/GPUs, method",
        "planning",
        "serving",
        "serving gain over no redundant slot",
        f"over `{BASE}`, served",
    ]
    return markdown(header, body)


def _domains(measured: Rows) -> str:
    body = []
    for model, shapes in BY_DOMAINS.items():
        for shape in shapes:
            for method in (BASE, "fast"):
                row = find(measured, model, shape, method)
                own, others = fmean(row["own"]), fmean(row["others"])
                base = fmean(find(measured, model, shape, BASE)["others"])
                line = [f"{own:.4f}", f"{others:.4f}", f"{min(row['others']):.4f}", f"{100 * (own - others):.1f}"]
                body.append(
                    [f"{_named(model, shape)}, `{method}`", *line, f"{100 * (others - base):+.1f}" if method != BASE else "-"]
                )
    header = [
        "model and deployment, method",
        "own domain",
        "another, mean",
        "worst of 20 pairs",
        "lost, points",
        f"over `{BASE}`",
    ]
    return markdown(header, body)


def table(measured: Rows) -> str:
    """Return what maps serve next, by plan, by slots and by domain, as Markdown."""
    text = (
        f"## Serving on public models\n\nDecode traffic of {DECODED}: 32 windows of 8 steps, 344 requests decoded together, 24 "
        f"layers of 32 experts, global policy. Measured where `{VARIABLE}` names a folder with the files; the project ships none "
        "of them, and averages none of these rows with its own loads"
    )
    if not given(measured):
        return f"{text}: {NOT_GIVEN}.\n"
    digests = ", ".join(
        f"{model} {find(measured, model, DEPLOYMENTS[model][3], BASE)['sha256'][:16]}" for model in (DECODED, *BY_DOMAIN)
    )
    pairs = len(from_first(find(measured, DECODED, SERIES[0], BASE), "serving"))
    return (
        f"{text} (starts of the sha256 of the arrays: {digests}).\n\nGPU balancedness on the window planned on and on the next, "
        f"means over the {pairs} pairs that serve window {FIRST} (from 0) or later: by then requests are past their first tokens "
        "and every history has its windows; the last column has all pairs. Gains are over DeepSeek's algorithm on the last "
        "window, in points, with 95 % t intervals over pairs. Consecutive pairs share a window; where the lag-one correlation "
        f"is far from 0, an interval is too narrow or too wide.\n\n{_series(measured)}\n\n"
        "### Where DeepSeek's algorithm loses balance\n\nPoints of balancedness, means over windows that are served and "
        "bounded, from 1 down to the best map (between what no map exceeds and the best that was found), to the algorithm "
        f"replanned on the window, to the map planned on the window before.\n\n{loss_table(measured)}\n\n"
        f"### Redundant slots on the next window\n\n{_redundancy(measured)}\n\n"
        "### From one domain to another\n\nFive domains of text, in no order of time, three layers: a map is planned on one and "
        "serves it and each other one. The 20 ordered pairs share their domains: no interval is given.\n\n"
        f"{_domains(measured)}\n"
    )


def _number(at: list[tuple[str, Deployment, str]], compute: Callable[[Rows], str]) -> Number:
    """A number from rows of a model, a deployment and a method each; it says where they were not measured."""
    patterns = tuple((SUITE, _named(model, shape), method) for model, shape, method in at)
    return Number(patterns, lambda found: compute(found) if given(found) else NOT_GIVEN)


def _signed(found: Interval) -> str:
    return interval_text(found, 1, sign=True)


def _over_base(shape: Deployment, side: str, text: Callable[[Interval], str] = _signed) -> Number:
    """What `fast` gains over DeepSeek's algorithm on decode traffic, in points, with its interval over pairs of windows."""

    def compute(found: Rows) -> str:
        ours, base = (from_first(find(found, DECODED, shape, name), side) for name in ("fast", BASE))
        return text(gain(ours, base))

    return _number([(DECODED, shape, name) for name in ("fast", BASE)], compute)


def _over_all_pairs(shape: Deployment) -> Number:
    """The same over all pairs, without an interval: neighbouring differences of the first windows are much alike."""

    def compute(found: Rows) -> str:
        ours, base = (fmean(find(found, DECODED, shape, name)["serving"]) for name in ("fast", BASE))
        return span([100 * (ours - base)], 1, sign=True)

    return _number([(DECODED, shape, name) for name in ("fast", BASE)], compute)


def _over_domains(compute: Callable[[Row, Row], Iterable[float]], digits: int, sign: bool) -> Number:
    """Least and largest of what the rows of DeepSeek's algorithm and of `fast` say, over OLMoE's deployments with replicas."""
    model, shapes = "OLMoE-1B-7B", tuple(DEPLOYMENTS["OLMoE-1B-7B"].values())

    def over(found: Rows) -> str:
        pairs = ((find(found, model, shape, BASE), find(found, model, shape, "fast")) for shape in shapes)
        return span((value for base, fast in pairs for value in compute(base, fast)), digits, sign)

    return _number([(model, shape, name) for shape in shapes for name in (BASE, "fast")], over)


STUDY = Study(
    SUITE,
    job="serving",
    about="what maps planned on public models' past serve next; their loads are not shipped",
    cells=cells,
    shapes=(
        Shape("heuristic", WINDOWS_PLANNED.fields | {"sha256": "text"}),
        Shape("solver", WINDOWS_BOUNDED.fields | {"sha256": "text"}, searched=WINDOWS_BOUNDED.searched),
        Shape("history", CELL | {"sha256": "text", "served": "object of list of number"}),
        Shape("domains", CELL | {"sha256": "text", "own": NUMBERS, "others": NUMBERS}),
    ),
    table=table,
    numbers={
        "public-serve-gain": _over_base(DEPLOYMENTS[DECODED][3], "serving"),
        "public-serve-points": _over_base(DEPLOYMENTS[DECODED][3], "serving", lambda found: f"{found.mean:.1f}"),
        "public-plan-gain": _over_base(DEPLOYMENTS[DECODED][3], "planning"),
        "public-serve-all": _over_all_pairs(DEPLOYMENTS[DECODED][3]),
        "public-serve-none": _over_base(MORE_SLOTS[0], "serving"),
        "public-domain-loss": _over_domains(
            lambda base, fast: (100 * (fmean(row["own"]) - fmean(row["others"])) for row in (base, fast)), 0, sign=False
        ),
        "public-domain-gain": _over_domains(
            lambda base, fast: [100 * (fmean(fast["others"]) - fmean(base["others"]))], 1, sign=True
        ),
    },
    blocks={"public losses": Drawn((SUITE,), loss_table)},
)
