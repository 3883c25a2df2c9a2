"""How far from optimal every balancer is, regime by regime: presets and a ladder of sizes on graded loads.

Part of ``eplb-gap bench regimes``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean, median

import numpy as np

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.synthetic import drifting_loads, family_loads
from eplb_gap.experiments.loads.traces import TRACES, name_of, trace
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.proven import closed, count, proofs
from eplb_gap.experiments.measuring.row_schema import CALL, CELL, PLANNED, SOLVED, Shape
from eplb_gap.experiments.measuring.rows import Fields, Instance, Row, Rows, layer_gaps
from eplb_gap.experiments.measuring.solve_cells import plan, solver_cell
from eplb_gap.experiments.measuring.statistics import Interval, mean_interval, paired
from eplb_gap.experiments.studies.head_to_head import planning_peers
from eplb_gap.experiments.studies.numbers import Number, interval_text
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.own import FAST
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS
from eplb_gap.problem.deployment import PRESETS, Deployment
from eplb_gap.problem.metrics import balancedness_gpu
from eplb_gap.problem.placement import Placement

SUITE = "regimes"
BASE = "initial_program"
SOLVER, FORBIDDEN = "auto", "auto, no duplicates"
EXAMPLE = "deepseek-readme"
"""Preset that comes with loads of its own, which the gap table has."""
LADDER = (
    Deployment(6, 8, 8),
    Deployment(96, 128, 128),
    Deployment(6, 8, 4),
    Deployment(24, 32, 16),
    Deployment(448, 512, 256),
    Deployment(24, 36, 12),
    Deployment(96, 144, 48),
    Deployment(384, 480, 160),
    Deployment(12, 16, 4),
    Deployment(48, 64, 16),
    Deployment(448, 512, 128),
    Deployment(36, 48, 8),
    Deployment(160, 192, 32),
    Deployment(24, 32, 4),
    Deployment(224, 256, 32),
    Deployment(896, 1024, 128),
    Deployment(32, 48, 12, 2, 4),
    Deployment(128, 144, 16, 4, 8),
)
DEPLOYMENTS = {name: preset for name, preset in PRESETS.items() if name != EXAMPLE} | {name_of(d): d for d in LADDER}
GRADED = ("flat", "ln.3", "ln.6", "ln1.0", "zipf.8", "zipf1.2", "hot")
DRIFTING = "drifting"
LARGE = 320
"""Slots above which a call of some programs takes seconds; such deployments have the families ``FEW`` alone."""
FEW = ("flat", "ln1.0", "zipf1.2", "hot")
SKEWED = ("ln1.0", "zipf1.2", "hot")
"""Families on which the price of forbidding duplicates is taken."""
LAYERS, MOST_LAYERS = 4, 8
"""Layers of a synthetic instance, and of one from a trace at most."""
TOTAL = 10**6
TARGET_GAP = 1e-4
EXACT_SLOTS_PER_GPU = 2
"""Up to here the solves aim at equal fractions."""
SECONDS_PER_LAYER = 2.5
CELL_SECONDS = 180.0
"""Far above what a cell needs, except one that has to compile the kernels first."""
README_METHODS = ("initial_program", "multi_swap_refinement_balanced_packing", "flashlb", "fast", "fast-split", SOLVER)
REGIMES = ("1 slot per GPU", "2 slots", "3 or 4 slots", "5 to 10 slots", "hierarchical")


@dataclass(frozen=True)
class Question:
    """Loads of one planning window, the deployment, and the loads of the next window where there is one."""

    loads: np.ndarray
    deployment: Deployment
    following: np.ndarray | None = None


def families(deployment: Deployment) -> tuple[str, ...]:
    """Return the loads that a deployment is asked on; the traces where they fit."""
    if deployment.num_slots > LARGE:
        return FEW
    fitting = TRACES if deployment.num_experts == trace("recorded").loads.shape[2] else ()
    return (*GRADED, DRIFTING, *fitting)


def methods(deployment: Deployment) -> tuple[str, ...]:
    """Return the balancers that plan on a deployment: some know no nodes or few extra replicas, and say so."""
    return (*SEED_PROGRAMS, *planning_peers(deployment), *FAST)


@cache
def question(name: str, family: str) -> Question:
    """Return the instance of a deployment and a family."""
    deployment = DEPLOYMENTS[name]
    if family in TRACES:
        windows = trace(family).loads[-2:, :MOST_LAYERS]
        return Question(windows[0], deployment, windows[1])
    if family == DRIFTING:
        windows = np.stack([drifting_loads(deployment.num_experts, TOTAL, seed) for seed in range(LAYERS)], axis=1)
        return Question(windows[-2], deployment, windows[-1])
    return Question(np.array([family_loads(family, deployment.num_experts, TOTAL, s) for s in range(LAYERS)]), deployment)


def instance(name: str, family: str, duplicates: str | None = None, **_: object) -> Instance:
    """Return an instance, with duplicates forbidden if told so."""
    asked = question(name, family)
    return asked.loads, replace(asked.deployment, duplicates="forbidden") if duplicates == "forbidden" else asked.deployment


def heuristic_cell(name: str, family: str, method: str) -> Fields:
    """Plan one instance with a heuristic; where its loads go on, serve the next window."""
    asked = question(name, family)
    placement, fields = plan(method, asked.loads, asked.deployment)
    return {**fields, "family": family, **_serving(placement, asked)}


def certified_cell(name: str, family: str, duplicates: str) -> Fields:
    """Solve one instance with duplicates as the deployment has them or forbidden."""
    asked = question(name, family)
    _, deployment = instance(name, family, duplicates)
    target = 0.0 if deployment.slots_per_gpu <= EXACT_SLOTS_PER_GPU else TARGET_GAP
    limit = SECONDS_PER_LAYER * len(asked.loads)
    fields = solver_cell(asked.loads, deployment, "auto", target, limit, keep_map=True)
    placement = Placement(np.array(fields.pop("phy2log")), deployment.num_experts)
    return {**fields, "family": family, **_serving(placement, asked)}


def _serving(placement: Placement, asked: Question) -> Fields:
    if asked.following is None:
        return {}
    return {"serving": balancedness_gpu(placement, asked.following, asked.deployment.num_gpus)}


def cells() -> list[Cell]:
    """Return the cells: every deployment on its families, the bound first, then the balancers that plan under its policy."""
    found = []
    for name, deployment in DEPLOYMENTS.items():
        planning = methods(deployment)
        for family in families(deployment):
            at, instance = {"name": name, "family": family}, f"{name} {family}"
            found.append(_cell(instance, SOLVER, certified_cell, {**at, "duplicates": deployment.duplicates}))
            if family in SKEWED and deployment.slots_per_gpu > 1:
                found.append(_cell(instance, FORBIDDEN, certified_cell, {**at, "duplicates": "forbidden"}))
            found += [_cell(instance, method, heuristic_cell, {**at, "method": method}) for method in planning]
    return found


def _cell(instance: str, method: str, function: Callable[..., Fields], arguments: dict[str, str]) -> Cell:
    return Cell(SUITE, instance, method, function, arguments, seconds=CELL_SECONDS)


def regime(row: Row) -> str:
    """Return the regime of a row's deployment."""
    if row["policy"] == "hierarchical":
        return REGIMES[4]
    slots = row["deployment"]["num_slots"] // row["deployment"]["num_gpus"]
    return REGIMES[0 if slots == 1 else 1 if slots == 2 else 2 if slots <= 4 else 3]


def gaps(measured: Rows) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return the gap of every layer of every legal map to the solver's bound, by regime, method and instance."""
    bound = {row["instance"]: row.lower for row in measured.where(suite=SUITE, method=SOLVER)}
    found: dict[str, dict[str, dict[str, list[float]]]] = {name: {} for name in REGIMES}
    for row in _of(measured):
        if row["upper"] is not None and row["method"] != FORBIDDEN:
            found[regime(row)].setdefault(row["method"], {})[row["instance"]] = layer_gaps(row, bound[row["instance"]])
    return found


def mean_percent(instances: dict[str, list[float]]) -> Interval:
    """Return the mean over instances of their layers' mean gap, in %, with its interval over instances."""
    return mean_interval([100 * fmean(layers) for layers in instances.values()])


def table(measured: Rows) -> str:
    """Gaps by regime and method, paired comparisons, how far the solver gets, and the price of forbidding duplicates."""
    return "\n\n".join([_gap_table(measured), _family_table(measured), _paired_table(measured), _certified_table(measured)])


def readme_table(measured: Rows) -> str:
    """Return mean and median gaps of some methods by regime, and the family that moves DeepSeek's mean most, as Markdown."""
    found, body = gaps(measured), []
    for method in README_METHODS:
        cells = []
        for name in REGIMES:
            instances = found[name].get(method)
            cells.append(mean_and_median(instances) if instances else "-")
        body.append([f"`{method}`", *cells])
    family = _families_by_instance(measured)
    lines = []
    for name in REGIMES[1:]:
        worst, inside, rest = _driver(found[name][BASE], family)
        lines.append(f"{name}: `{worst}` {inside:.2f}, the others {rest:.2f}")
    return (
        "Mean over instances (median) [descriptive 95 % interval of the mean over these instances, which are no sample of a "
        "population].\n\n"
        + markdown(["method", *(f"{name} ({len(found[name][SOLVER])} instances)" for name in REGIMES)], body)
        + f"\n\nThe family of loads with the largest mean of `{BASE}`: {'; '.join(lines)}."
    )


def mean_and_median(instances: dict[str, list[float]]) -> str:
    """Return mean, median and, in brackets, the descriptive interval of the mean over instances, in %."""
    middle = median(100 * fmean(layers) for layers in instances.values())
    mean, bracket, interval = interval_text(mean_percent(instances), 2).partition(" [")
    return f"{mean} ({middle:.2f}){bracket}{interval}"


def of_families(instances: dict[str, list[float]], family: dict[str, str]) -> dict[str, list[float]]:
    """Return the instances' mean gaps in % by the family of their loads; synthetic ones before traces."""
    found: dict[str, list[float]] = {name: [] for name in (*GRADED, DRIFTING, *TRACES)}
    for instance_name, layers in instances.items():
        found[family[instance_name]].append(100 * fmean(layers))
    return {name: values for name, values in found.items() if values}


def _families_by_instance(measured: Rows) -> dict[str, str]:
    return {row["instance"]: row["family"] for row in _of(measured).where(method=SOLVER)}


def _driver(instances: dict[str, list[float]], family: dict[str, str]) -> tuple[str, float, float]:
    """Return the family with the largest mean gap, that mean, and the mean over all other instances, in %."""
    found = of_families(instances, family)
    worst = max(found, key=lambda name: fmean(found[name]))
    rest = [value for name, values in found.items() if name != worst for value in values]
    return worst, fmean(found[worst]), fmean(rest)


def _family_table(measured: Rows) -> str:
    found, family = gaps(measured), _families_by_instance(measured)
    names = (*GRADED, DRIFTING, *TRACES)
    body = [
        [f"{regime_name}, `{method}`", *(f"{fmean(values[name]):.2f}" if name in values else "-" for name in names)]
        for regime_name in REGIMES
        for method in (BASE, "fast", "fast-split")
        if (values := of_families(found[regime_name].get(method, {}), family))
    ]
    return (
        "### Family by family\n\nMean gap in % over the instances of one family of loads each; all but the two traces are "
        "synthetic, the calibrated trace too. A pooled mean above depends on how many instances of each family were asked.\n\n"
        + markdown(["regime, method", *names], body)
    )


def _of(measured: Rows) -> Rows:
    return measured.where(suite=SUITE)


def _gap_table(measured: Rows) -> str:
    found = gaps(measured)
    kinds = {row["instance"]: proofs(row) for row in _of(measured).where(method=SOLVER)}
    body = [[f"`{m}`", *(_gap_entry(found[name].get(m), kinds) for name in REGIMES)] for m in ranked(found)]
    header = ["method"]
    for name in REGIMES:
        solved = found[name].get(SOLVER, {})
        header.append(f"{name} ({len(solved)} instances, {sum(map(len, solved.values()))} layers)")
    presets, shapes = ([n for n in DEPLOYMENTS if (n in PRESETS) is preset] for preset in (True, False))
    return (
        "## Regimes\n\nGap to the solver's bound in %: median / mean [95 % interval of the mean] / worst, and layers proven "
        "optimal, those where that rests on a claim apart. Median, worst and optimal are over layers; the mean is over "
        "instances, of their layers' mean, and its interval a descriptive bootstrap over these instances, no sample of a "
        f"population. Deployments: {', '.join(f'`{name}`' for name in presets)}, and "
        f"experts/slots/GPUs {', '.join(shapes)}. Synthetic loads of {LAYERS} layers, seeds 0 to {LAYERS - 1}: "
        f"{', '.join(GRADED)}, {DRIFTING}; above {LARGE} slots only {', '.join(FEW)}. With 256 experts also the last planning "
        f"window of both traces, at most {MOST_LAYERS} layers. `{SOLVER}` has {SECONDS_PER_LAYER:g} s a layer and says how much "
        "of every gap may be the bound's. Methods by mean gap over all instances they plan.\n\n"
        + markdown(header, body)
        + f"\n\n{_illegal(measured)}"
    )


def ranked(found: dict[str, dict[str, dict[str, list[float]]]]) -> list[str]:
    """Return the methods by their mean gap over all instances that they plan; equal ones by name."""

    def mean(method: str) -> float:
        return fmean(fmean(of) for name in REGIMES for of in found[name].get(method, {}).values())

    return sorted({method for of in found.values() for method in of}, key=lambda method: (mean(method), method))


def _gap_entry(instances: dict[str, list[float]] | None, kinds: dict[str, list[str]]) -> str:
    if not instances:
        return "-"
    layers = [100 * gap for of in instances.values() for gap in of]
    mean = interval_text(mean_percent(instances), 3)
    met = (pair for name, of in instances.items() for pair in zip(kinds[name], (gap == 0 for gap in of), strict=True))
    return f"{median(layers):.3f} / {mean} / {max(layers):.2f}; {count(met)}"


def _paired_table(measured: Rows) -> str:
    found = gaps(measured)
    compared = [method for method in ranked(found) if method not in {BASE, SOLVER}]
    body = [[f"`{m}`", *(_paired_entry(found[name], m) for name in REGIMES)] for m in compared]
    return (
        f"### Against `{BASE}`, paired\n\nDifference of the mean gaps, method minus `{BASE}`, in points of %, over the instances "
        "that both plan [95 % interval over instances]; effect (matched-pairs rank-biserial correlation: -1 if the method is "
        "better wherever the two differ); instances on which it is better / equal / worse.\n\n"
        + markdown(["method", *REGIMES], body)
    )


def _paired_entry(found: dict[str, dict[str, list[float]]], method: str) -> str:
    ours, base = found.get(method, {}), found.get(BASE, {})
    both = [instance for instance in base if instance in ours]
    if not both:
        return "-"
    compared = paired(*([100 * fmean(of[instance]) for instance in both] for of in (ours, base)))
    difference = interval_text(compared.difference, 3, sign=True)
    counts = f"{compared.losses} / {compared.ties} / {compared.wins}"
    return f"{difference}; {compared.effect:+z.2f}; {counts}"


def _illegal(measured: Rows) -> str:
    asked = _of(measured).where(kind="heuristic")
    counts = {}
    for method in dict.fromkeys(row["method"] for row in asked):
        of = asked.where(method=method)
        if illegal := sum(row["upper"] is None for row in of):
            counts[method] = f"`{method}` {illegal} of {len(of)} instances"
    if not counts:
        return "Every map is legal."
    return f"Illegal maps, which no number above counts: {'; '.join(counts.values())}."


def _certified_table(measured: Rows) -> str:
    body = []
    for name in REGIMES:
        solved = Rows(row for row in _of(measured).where(method=SOLVER) if regime(row) == name)
        if not solved:
            continue
        layers = [100 * gap for row in solved for gap in row["gap"]]
        seconds = [row["wall_seconds"] for row in solved]
        body.append(
            [
                name,
                str(len(solved)),
                str(closed(solved)),
                f"{fmean(layers):.4f} / {max(layers):.3f}",
                f"{median(seconds):.2f} / {max(seconds):.1f}",
                _price(Rows(row for row in _of(measured).where(method=FORBIDDEN) if regime(row) == name), solved),
            ]
        )
    header = [
        "regime",
        "instances",
        "layers optimal",
        "its own gap mean / worst, %",
        "seconds a call, median / worst",
        "forbidding duplicates, % of the makespan",
    ]
    return (
        f"### How far `{SOLVER}` gets\n\nWith {SECONDS_PER_LAYER:g} s a layer, to the optimum up to {EXACT_SLOTS_PER_GPU} "
        f"slots per GPU, to {100 * TARGET_GAP:g} % above. The last column is the price of forbidding two replicas of one expert "
        f"on a GPU: what the optimum's summed makespans rise, mean over the instances of {', '.join(SKEWED)}, from the least to "
        "the most that the bounds of both solves leave.\n\n" + markdown(header, body)
    )


def _price(dear: Rows, solved: Rows) -> str:
    """Return the mean over instances of the interval that the bounds leave for the rise of the optimum."""
    cheap = {row["instance"]: row for row in solved}
    if not dear:
        return "-"
    least = fmean(max(0.0, _total(r, "lower") / _total(cheap[r["instance"]], "upper") - 1) for r in dear)
    most = fmean(_total(r, "upper") / _total(cheap[r["instance"]], "lower") - 1 for r in dear)
    return f"{100 * least:.3f} to {100 * most:.3f} ({len(dear)} instances)"


def _total(row: Row, side: str) -> float:
    return float(sum(row.lower if side == "lower" else row.upper))


def _number(name: str, method: str) -> Number:
    """The mean gap in a regime with its interval over instances."""
    patterns = ((SUITE, "*", method), (SUITE, "*", SOLVER))
    return Number(patterns, lambda rows: f"{mean_percent(gaps(rows)[name][method]).mean:.2f}")


def _median(name: str) -> Number:
    """The median over instances of the mean gap of DeepSeek's algorithm."""
    patterns = ((SUITE, "*", BASE), (SUITE, "*", SOLVER))
    return Number(patterns, lambda rows: f"{median(100 * fmean(of) for of in gaps(rows)[name][BASE].values()):.2f}")


def _driven(name: str, of: int) -> Number:
    """The family on which DeepSeek's algorithm is worst in a regime (0), its mean there (1) and over the others (2)."""
    patterns = ((SUITE, "*", BASE), (SUITE, "*", SOLVER))

    def compute(rows: Rows) -> str:
        value = _driver(gaps(rows)[name][BASE], _families_by_instance(rows))[of]
        return value if isinstance(value, str) else f"{value:.2f}"

    return Number(patterns, compute)


def _proven(rows: Rows) -> str:
    found = closed(rows)
    return f"{found.optimal:,} of {found.layers:,}"


def _claimed(rows: Rows) -> str:
    return f"{closed(rows).claimed:,}"


_, TWO, THREE_OR_FOUR, MORE, HIERARCHICAL = REGIMES
SHORT = {"two": TWO, "few": THREE_OR_FOUR, "many": MORE, "hierarchical": HIERARCHICAL}

STUDY = Study(
    SUITE,
    job="regimes",
    about="every balancer and the solver on presets and sizes from 8 to 1024 slots, graded synthetic loads",
    cells=cells,
    shapes=(
        Shape("heuristic", PLANNED | {"family": "text"}, {"serving": "number"}),
        Shape(
            "solver",
            {**CELL, **CALL, **SOLVED, "family": "text"},
            {"serving": "number"},
            frozenset({*SOLVED, "status", "placement", "serving"}),
        ),
    ),
    instance=instance,
    table=table,
    figures=("regime_gaps",),
    numbers={
        **{f"regime-{short}": _number(name, BASE) for short, name in SHORT.items()},
        **{f"regime-{short}-split": _number(name, "fast-split") for short, name in SHORT.items()},
        **{f"regime-{short}-median": _median(name) for short, name in SHORT.items()},
        **{f"regime-driver-{part}": _driven(HIERARCHICAL, of) for of, part in enumerate(("family", "inside", "rest"))},
        "regime-few-certified": _number(THREE_OR_FOUR, SOLVER),
        "regime-two-certified": _number(TWO, SOLVER),
        "regime-two-hamilton": _number(TWO, "proportional_quota_replication"),
        "regime-instances": Number(((SUITE, "*", SOLVER),), lambda rows: str(len(rows))),
        "regime-proven": Number(((SUITE, "*", SOLVER),), _proven),
        "regime-claimed": Number(((SUITE, "*", SOLVER),), _claimed),
    },
)
