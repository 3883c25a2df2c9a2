"""The project's planner against every other balancer on the flagship: time, planning gap, serving balance, duplicates."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from eplb_gap import solvers
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.traces import CERTIFIED_GAP, EXACT_SECONDS, POLICIES, TRACES, WINDOWS, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, WINDOWS_PLANNED, WINDOWS_PROVEN, Shape
from eplb_gap.experiments.measuring.rows import Fields, Instance, Row, Rows, layer_gaps
from eplb_gap.experiments.measuring.solve_cells import certified_status, planned_row, proof_fields
from eplb_gap.experiments.measuring.statistics import Interval, paired
from eplb_gap.experiments.studies.numbers import Number, Pattern, percent, span
from eplb_gap.experiments.studies.study import Drawn, Study
from eplb_gap.heuristics.own import FAST
from eplb_gap.heuristics.programs.peers import PEERS, REWRITTEN
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.fractions import fractions

PAIRS = WINDOWS - 1
ROUNDS = 11
"""Turns of the timing."""
SUITE = "heuristics"
SECONDS_SUITE = "heuristic_seconds"
BASE = "initial_program"


def applicable(policy: str) -> tuple[str, ...]:
    """Return the methods that plan under a policy: some balancers of others know no nodes and say so."""
    return (BASE, *REWRITTEN, *planning_peers(POLICIES[policy]), *FAST)


def planning_peers(deployment: Deployment) -> list[str]:
    """Return the balancers of others that plan on a deployment whatever the loads are."""
    return [name for name, peer in PEERS.items() if peer.plans(deployment)]


def instance(trace_name: str, policy: str, **_: object) -> Instance:
    """Return the windows of a trace under a policy."""
    return trace(trace_name).loads, POLICIES[policy]


def quality_cell(trace_name: str, policy: str, method: str) -> Fields:
    """Plan on every window of a trace, verify, and score on that window and on the next."""
    return planned_row(*instance(trace_name, policy), method)


def bound_cell(trace_name: str, policy: str) -> Fields:
    """Certify the optimum of every window of a trace."""
    loads, deployment = instance(trace_name, policy)
    solved = [solvers.solve(loads[w], deployment, "auto", CERTIFIED_GAP, EXACT_SECONDS) for w in range(PAIRS)]
    proof = [solution.proof for solution in solved]
    reached = all(gap <= CERTIFIED_GAP for solution in solved for gap in solution.gap)
    return {
        "kind": "solver",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"windows": PAIRS, "target_gap": CERTIFIED_GAP},
        "status": certified_status(reached, proof),
        "upper": [fractions(solution.upper) for solution in solved],
        "lower": [fractions(solution.lower) for solution in solved],
        **proof_fields(proof),
    }


def cells() -> list[Cell]:
    """Return the cells of quality; times are measured apart, all methods in one invocation."""
    found = []
    for name in TRACES:
        for policy in POLICIES:
            at = {"trace_name": name, "policy": policy}
            found.append(Cell(SUITE, f"{name} {policy}", "auto", bound_cell, at))
            found += [Cell(SUITE, f"{name} {policy}", m, quality_cell, {**at, "method": m}) for m in applicable(policy)]
    return found


def find(measured: Rows, name: str, policy: str, method: str) -> Row:
    """Return the row of a method on a trace."""
    return measured.one(suite=SUITE, trace=name, policy=policy, method=method)


def mean_gaps(measured: Rows, name: str, policy: str, method: str) -> list[float]:
    """Return the gap of every layer and window of a method to the certified bound."""
    return layer_gaps(find(measured, name, policy, method), find(measured, name, policy, "auto").lower)


def seconds(measured: Rows, policy: str) -> dict[str, Row]:
    """Return the time rows of a policy by method."""
    return {row["method"]: row for row in measured.where(suite=SECONDS_SUITE, instance=policy)}


def table(measured: Rows) -> str:
    """One table per policy: time, and on both traces gap, balancedness and duplicates."""
    sections = []
    for policy in POLICIES:
        timed, body = seconds(measured, policy), []
        for method, row in timed.items():
            cells = [
                f"{1000 * row['median_seconds']:.2f}",
                f"{1000 * min(row['seconds']):.2f} to {1000 * max(row['seconds']):.2f}",
            ]
            cells.append(f"1/{1 / row['ratio']:.0f}" if row["ratio"] < 0.5 else f"{row['ratio']:.2f}")
            for name in TRACES:
                at = find(measured, name, policy, method)
                gaps = mean_gaps(measured, name, policy, method)
                cells += [
                    f"{100 * fmean(gaps):.4f} / {100 * max(gaps):.3f} %",
                    f"{fmean(at['planning']):.4f}",
                    f"{fmean(at['serving']):.4f}",
                    str(sum(at["duplicates"])),
                ]
                legal = at["status"]
            body.append([f"`{method}`", *cells, legal])
        argsort = next(iter(timed.values()))["argsort_seconds"]
        header = ["method", "median ms", "spread ms", f"to `{BASE}`"]
        for name in TRACES:
            header += [f"{name}: gap mean / worst", *(f"{name}: {what}" for what in ("planning", "serving", "duplicates"))]
        sections.append(
            f"### {policy}\n\n58 layers, 256 experts, 288 slots, 32 GPUs. `numpy.argsort` of the same 58 x 256 float32 array: "
            f"{1000 * argsort:.3f} ms.\n\n" + markdown([*header, "maps"], body)
        )
    return (
        "## Head to head\n\nTime of one call with the calibrated window 0, one thread, "
        f"{ROUNDS} interleaved turns in one invocation. Gap to the certified bound, GPU balancedness on the planning and on the "
        f"next window, and same-GPU duplicates: means, and sums, over {PAIRS} window pairs of each trace (recorded: 8 layers; "
        "calibrated: 58, synthetic).\n\n" + "\n\n".join(sections)
    )


def readme_table(measured: Rows) -> str:
    """The README's short form: both policies on the calibrated trace, fastest first."""
    body = []
    for policy in POLICIES:
        timed = seconds(measured, policy)
        for method in sorted(timed, key=lambda m: timed[m]["median_seconds"]):
            gaps = mean_gaps(measured, "calibrated", policy, method)
            at = find(measured, "calibrated", policy, method)
            per_hundred = 100 * sum(at["duplicates"]) / (PAIRS * len(at["upper"][0]))
            body.append(
                [
                    policy,
                    f"`{method}`",
                    f"{1000 * timed[method]['median_seconds']:.2f}",
                    f"{100 * fmean(gaps):.3f} / {100 * max(gaps):.2f}",
                    f"{fmean(at['planning']):.4f}",
                    f"{fmean(at['serving']):.4f}",
                    f"{per_hundred:.0f}",
                ]
            )
    header = ["policy", "method", "ms", "gap mean / worst, %", "planning", "serving", "duplicates per 100 layers"]
    return markdown(header, body)


def gain(measured: Rows, name: str, policy: str, method: str, side: str) -> Interval:
    """Return what a method gains over DeepSeek's algorithm in points of GPU balancedness, with a 95 % bootstrap interval.

    Parameters
    ----------
    measured : Rows
    name, policy, method : str
    side : str
        "planning" or "serving". The pairs of windows are resampled as if independent, which consecutive ones are not.
    """
    ours, base = (find(measured, name, policy, m)[side] for m in (method, BASE))
    return paired(ours, base).difference.scaled(100)


SETTINGS = [(name, policy) for name in TRACES for policy in POLICIES]
"""Traces under policies, as the paper lists them."""


def _patterns(settings: list[tuple[str, str]], *methods: str) -> tuple[Pattern, ...]:
    return tuple((SUITE, f"{name} {policy}", method) for name, policy in settings for method in methods)


def _gap(name: str, policy: str, method: str, of: Callable[[list[float]], float]) -> Number:
    patterns = _patterns([(name, policy)], method, "auto")
    return Number(patterns, lambda rows: percent(of(mean_gaps(rows, name, policy, method))))


def _gains(method: str, side: str) -> Number:
    """Least and largest gain over all settings."""
    patterns = _patterns(SETTINGS, method, BASE)
    return Number(patterns, lambda rows: span((gain(rows, *at, method, side).mean for at in SETTINGS), 1, sign=True))


def _worst(rows: Rows) -> str:
    return percent(max(max(mean_gaps(rows, *at, "fast-split")) for at in SETTINGS), 3)


def _without_gain(rows: Rows) -> str:
    """Of the settings, those in which the interval of the serving gain includes 0."""
    ends = [gain(rows, *at, "fast-split", "serving") for at in SETTINGS]
    return str(sum(found.low <= 0 <= found.high for found in ends))


STUDY = Study(
    SUITE,
    job="heuristics",
    about="the project's planner and the balancers of others on every window of both traces; certified optima beside them",
    cells=cells,
    shapes=(
        WINDOWS_PLANNED,
        Shape(
            "solver",
            CELL | {"upper": "list of list of p/q", "lower": "list of list of p/q", **WINDOWS_PROVEN},
            searched=frozenset({"upper", "lower", *WINDOWS_PROVEN, "status"}),
        ),
    ),
    instance=instance,
    table=table,
    figures=("pareto",),
    numbers={
        **{f"gap-{name}-{policy}": _gap(name, policy, BASE, fmean) for name, policy in SETTINGS},
        **{f"worst-{name}-{policy}": _gap(name, policy, BASE, max) for name, policy in SETTINGS},
        "gap-openevolve": _gap("calibrated", "hierarchical", "openevolve", fmean),
        "gap-fast": _gap("calibrated", "hierarchical", "fast", fmean),
        "worst-split": Number(_patterns(SETTINGS, "fast-split", "auto"), _worst),
        "planning-gain": _gains("fast-split", "planning"),
        "serving-gain": _gains("fast-split", "serving"),
        "survival-zero": Number(_patterns(SETTINGS, "fast-split", BASE), _without_gain),
    },
    blocks={"head to head": Drawn((SUITE, SECONDS_SUITE), readme_table)},
)
