"""What the exact engines say about policies, balancers and replica counts (part of ``eplb-gap bench solvers``)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from statistics import fmean

import numpy as np

from eplb_gap import heuristics, solvers
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.random_instances import flat_instances
from eplb_gap.experiments.loads.synthetic import family_loads
from eplb_gap.experiments.loads.traces import CERTIFIED_GAP, FLAGSHIP, TRACES, WINDOWS, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS
from eplb_gap.problem.bounds.bounds import adams_counts, best_joint_bound
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.fractions import fractions
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.metrics import optimality_gap
from eplb_gap.problem.validation import verify
from eplb_gap.solvers.engines.oracle import best_map, best_map_for_counts
from eplb_gap.solvers.engines.pairing import fold

POLICIES = {
    "hierarchical": FLAGSHIP,
    "global": FLAGSHIP.as_global(),
    "hierarchical, no duplicates": replace(FLAGSHIP, duplicates="forbidden"),
    "global, no duplicates": replace(FLAGSHIP.as_global(), duplicates="forbidden"),
}
SECONDS = 40.0
PAIRED = Deployment(256, 288, 144)
"""Two slots per GPU, where the pairing structure binds."""
FAMILIES = ("ln.6", "ln1.0", "zipf.8", *TRACES)
"""Loads for ``PAIRED``: synthetic families, four layers each, and the last planning window of both traces."""
PAIRED_SECONDS = 20.0
GAPS = ("mean", "simple", "lower")
"""Bounds that the programs are held against there: mean load, closed forms, what the engine proves."""
TINY_SHAPES = [(8, 12, 4), (9, 12, 3), (8, 12, 3), (10, 12, 4)]
TINY = 80


def policy_cell(trace_name: str, window: int, policy: str) -> Row:
    """Certify the optimum of one window under a policy."""
    deployment, loads = POLICIES[policy], trace(trace_name).window(window)
    solution = solvers.solve(loads, deployment, "auto", CERTIFIED_GAP, SECONDS)
    return {
        "kind": "finding",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"target_gap": CERTIFIED_GAP, "time_limit": SECONDS},
        "status": solution.status,
        "upper": fractions(solution.upper),
        "lower": fractions(solution.lower),
        "gap": solution.gap,
    }


def paired_cell(family: str) -> Row:
    """Judge the programs and Adams' counts at two slots per GPU by proven optima and by the simple bounds."""
    if family in TRACES:
        loads = trace(family).window(-2)[:8]
    else:
        loads = np.array([family_loads(family, PAIRED.num_experts, 10**6, seed) for seed in range(4)])
    instances = [Instance.of_layer(row, PAIRED) for row in loads]
    solution = solvers.solve(loads, PAIRED, "auto", 0.0, PAIRED_SECONDS * len(loads))
    simple = [best_joint_bound(instance).value for instance in instances]
    folded = [i.makespan(fold(i, adams_counts(i.loads, i.num_slots, i.max_count))) for i in instances]
    found = {"Adams, best pairing of its counts": folded}
    found |= {m: verify(heuristics.rebalance(loads, PAIRED, m), loads, PAIRED) for m in SEED_PROGRAMS}
    return {
        "kind": "finding",
        "hash": rows.instance_hash(loads, PAIRED),
        "parameters": {"time_limit": PAIRED_SECONDS * len(loads)},
        "status": solution.status,
        "upper": fractions(solution.upper),
        "lower": fractions(solution.lower),
        "mean": fractions(instance.mean for instance in instances),
        "simple": fractions(simple),
        "programs": {name: fractions(values) for name, values in found.items()},
    }


def counts_cell() -> Row:
    """Compare, by brute force, the best map of Adams' counts with the best map of any counts."""
    excess, hot = [], []
    for instance in flat_instances(TINY, 300, TINY_SHAPES):
        counts = adams_counts(instance.loads, instance.num_slots, instance.max_count)
        best = instance.makespan(best_map(instance))
        excess.append(optimality_gap(best_map_for_counts(instance, counts), best))
        hot.append(max(instance.loads) * instance.num_gpus > instance.total)
    return {"kind": "finding", "hash": "", "parameters": {"instances": TINY}, "status": "done", "excess": excess, "hot": hot}


def cells() -> list[Cell]:
    """Return the cells of all three questions."""
    priced = [
        Cell("findings", f"{name}-{window:02d}", policy, policy_cell, {"trace_name": name, "window": window, "policy": policy})
        for name in TRACES
        for window in range(WINDOWS)
        for policy in POLICIES
    ]
    paired = [Cell("findings", f"256/288/144 {family}", "auto", paired_cell, {"family": family}) for family in FAMILIES]
    return [*priced, *paired, Cell("findings", "tiny", "oracle", counts_cell)]


def tables(measured: list[Row]) -> str:
    """Prices of hierarchy and of forbidding duplicates, balancers at two slots per GPU, Adams' counts against the best."""
    found = [row for row in measured if row["suite"] == "findings"]
    return "\n\n".join([_prices(found), _paired(found), _counts(found)])


def _prices(found: list[Row]) -> str:
    body = []
    for name in TRACES:
        at = {
            policy: [row for row in found if row["instance"].startswith(f"{name}-") and row["method"] == policy]
            for policy in POLICIES
        }
        price = [_price(at["hierarchical"], at["global"]), _price(at["hierarchical, no duplicates"], at["hierarchical"])]
        price.append(_price(at["global, no duplicates"], at["global"]))
        price.append(_above_mean(at["global"], name))
        body.append([name, *price])
    header = [
        "trace",
        "hierarchy",
        "forbidding duplicates, hierarchical",
        "forbidding duplicates, global",
        "integrality: global optimum over the mean",
    ]
    return (
        "## Prices\n\nSummed makespans of the optimum over all windows and layers, in % above those of the reference; "
        f"as an interval, from bounds certified within {100 * CERTIFIED_GAP:g} %.\n\n" + markdown(header, body)
    )


def _price(dear: list[Row], cheap: list[Row]) -> str:
    least = _total(dear, "lower") / _total(cheap, "upper") - 1
    most = _total(dear, "upper") / _total(cheap, "lower") - 1
    return f"{100 * max(0.0, float(least)):.3f} to {100 * float(most):.3f} %"


def _above_mean(solved: list[Row], name: str) -> str:
    mean = Fraction(int(trace(name).loads.sum()), FLAGSHIP.num_gpus)
    return f"{100 * float(_total(solved, 'lower') / mean - 1):.3f} to {100 * float(_total(solved, 'upper') / mean - 1):.3f} %"


def _total(solved: list[Row], side: str) -> Fraction:
    return sum((Fraction(value) for row in solved for value in row[side]), Fraction(0))


def _paired(found: list[Row]) -> str:
    at = {family: next(row for row in found if row["instance"] == f"256/288/144 {family}") for family in FAMILIES}
    body = []
    for name in next(iter(at.values()))["programs"]:
        cells = []
        for row in at.values():
            upper = [Fraction(value) for value in row["programs"][name]]
            gaps = {side: [optimality_gap(u, Fraction(v)) for u, v in zip(upper, row[side], strict=True)] for side in GAPS}
            optimal = sum(u == Fraction(v) for u, v in zip(upper, row["lower"], strict=True))
            means = " / ".join(f"{100 * fmean(gaps[side]):.2f}" for side in GAPS)
            cells.append(f"{means} %, {optimal}/{len(upper)}")
        body.append([f"`{name}`" if name in SEED_PROGRAMS else name, *cells])
    proven = ", ".join(
        f"{family} {sum(s == 'optimal' for s in row['status'])}/{len(row['status'])}" for family, row in at.items()
    )
    return (
        "## Balancers at two slots per GPU\n\n256 experts, 288 slots, 144 GPUs, global. Mean gap to the mean load / to the "
        "best closed-form bound / to the bound that the engine proves, and layers in which the program is proven optimal. "
        f"Layers with a proven optimum: {proven}.\n\n" + markdown(["program", *FAMILIES], body)
    )


def _counts(found: list[Row]) -> str:
    row = next(row for row in found if row["instance"] == "tiny")
    body = []
    for kind, wanted in (("no expert above the mean GPU load", False), ("an expert above it", True)):
        excess = [value for value, hot in zip(row["excess"], row["hot"], strict=True) if hot is wanted]
        other = [value for value in excess if value > 0]
        loss = f"{100 * fmean(other):.2f} / {100 * max(other):.2f} %" if other else "-"
        body.append([kind, str(len(excess)), str(len(other)), loss])
    return (
        "## Adams' counts against the best counts\n\nRandom instances of 12 slots (3 or 4 on a GPU), by brute force.\n\n"
        + markdown(["loads", "instances", "best map needs other counts", "loss with Adams' counts there, mean / worst"], body)
    )
