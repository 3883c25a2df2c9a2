"""The ten programs of the published search, a negative control and certified optima on every window of both traces."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from statistics import fmean
from typing import Any

import numpy as np

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.traces import CERTIFIED_GAP, EXACT_SECONDS, FLAGSHIP, TRACE_TITLES, TRACES, WINDOWS, trace
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import BALANCE, CELL, PLANNED, Shape, solver
from eplb_gap.experiments.measuring.rows import Fields, Instance, Row, Rows
from eplb_gap.experiments.measuring.solve_cells import deployment_fields, plan, solver_cell
from eplb_gap.experiments.studies.defective_snake import defective_map, published_score
from eplb_gap.experiments.studies.numbers import Number
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS
from eplb_gap.problem import metrics
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import PlacementError
from eplb_gap.problem.placement import Placement

SUITE = "protocol"
PUBLISHED = {  # balancedness and combined score that the search reported for its programs, in order of generation
    "initial_program": (".311077", ".66"),
    "diversity_aware_gpu_packing": (".3111", ".66"),
    "local_swap_refine_in_packing": (".306805", ".65"),
    "eplb_snake_pipeline": (".254285", ".63"),
    "diverse_pack_projload_and_incremental_ratio": (".3068", ".65"),
    "proportional_quota_replication": (".2897", ".64"),
    "single_swap_refinement": (".3111", ".66"),
    "moe_eplb_modular_refine": (".3111", ".66"),
    "multi_swap_refinement_balanced_packing": (".311077", ".66"),
    "rr_waterfill_hare": (".289706", ".64"),
}
SEED_PAIRS, ALL_PAIRS = 5, WINDOWS - 1
BASE, CONTROL, OPTIMUM = "initial_program", "defective_snake", "auto"


def instance(trace_name: str, window: int, **_: object) -> Instance:
    """Return one window of a trace on the flagship."""
    return trace(trace_name).window(window), FLAGSHIP


def protocol_cell(trace_name: str, window: int, method: str) -> Fields:
    """Plan on one window of a trace and score on that window and on the next."""
    loads = trace(trace_name).loads
    placement, fields = plan(method, loads[window], FLAGSHIP)
    fields["planning"] = _balance(placement, loads[window], FLAGSHIP)
    fields["serving"] = _balance(placement, loads[window + 1], FLAGSHIP) if window + 1 < WINDOWS else None
    return fields


def _balance(placement: Placement, loads: np.ndarray, deployment: Deployment) -> dict[str, float]:
    return {
        "gpu": metrics.balancedness_gpu(placement, loads, deployment.num_gpus),
        "expert": metrics.balancedness_expert(placement, loads),
    }


def control_cell(trace_name: str, window: int) -> Fields:
    """Score the defective snake map as the published scorer does, and record what the judge says of it."""
    loads = trace(trace_name).loads
    phy2log, log2phy, logcnt = defective_map(loads[window], FLAGSHIP)
    try:
        Placement.from_tensors(phy2log, log2phy, logcnt)
        status = "legal"
    except PlacementError as error:
        status = f"illegal: {error}"
    return {
        **deployment_fields(FLAGSHIP, loads[window]),
        "kind": "negative control",
        "parameters": {},
        "status": status,
        "upper": None,
        "planning": {"expert": published_score(loads[window], log2phy, logcnt, FLAGSHIP.num_slots)},
        "serving": {"expert": published_score(loads[window + 1], log2phy, logcnt, FLAGSHIP.num_slots)},
    }


def window_solver_cell(trace_name: str, window: int) -> Fields:
    """Certify the hierarchical optimum of one window of a trace."""
    return solver_cell(trace(trace_name).window(window), FLAGSHIP, "auto", CERTIFIED_GAP, EXACT_SECONDS)


def cells() -> list[Cell]:
    """Return the cells of the seed table: programs, negative control and certified optima on every window of both traces."""
    found = []
    for name in TRACES:
        for window in range(WINDOWS):
            at = {"trace_name": name, "window": window}
            instance = f"{name}-{window:02d}"
            found += [Cell(SUITE, instance, m, protocol_cell, {**at, "method": m}) for m in SEED_PROGRAMS]
            found.append(Cell(SUITE, instance, OPTIMUM, window_solver_cell, at))
            if window + 1 < WINDOWS:
                found.append(Cell(SUITE, instance, CONTROL, control_cell, at))
    return found


def on_windows(measured: Rows, trace_name: str, method: str) -> Rows:
    """Return the rows of one method on all windows of a trace, oldest first."""
    found = measured.where(suite=SUITE, trace=trace_name, method=method)
    return Rows(sorted(found, key=lambda row: row["instance"]))


def certified_balancedness(row: Row, trace_name: str, window: int, side: str = "lower") -> float:
    """Return the planning balancedness (GPU) of a certified optimum; from the lower bounds no placement exceeds it."""
    loads = trace(trace_name).window(window)
    makespans = sum(row.lower if side == "lower" else row.upper, Fraction(0))
    return float(Fraction(int(loads.sum()), row["deployment"]["num_gpus"]) / makespans)


def table(measured: Rows) -> str:
    """Skew and drift of the traces, the seed table of both, and which programs the metric cannot tell apart."""
    return "\n\n".join([trace_table(), *(seed_table(measured, name) for name in TRACES), class_note(measured)])


def trace_table() -> str:
    """Skew and drift of both traces, window by window."""
    body = []
    for name in TRACES:
        loads = trace(name)
        skew, drift = loads.skew(FLAGSHIP.num_groups), loads.drift()
        for window in range(WINDOWS):
            values = [f"{skew[key][window]:.3f}" for key in ("max_over_mean", "cv", "top_share", "group_max_over_mean")]
            body.append([f"{name} {window}", *values, f"{drift[window - 1]:.3f}" if window else ""])
    header = ["trace, window", "max / mean", "CV", "top-8 share", "group max / mean", "drift"]
    return (
        "## The two traces\n\nMeans over layers; drift is the total-variation distance to the window before. The recorded trace "
        "comes from a small model trained for this purpose and is milder than a production deployment's; the calibrated one is "
        "synthetic, fitted to published statistics of a 58-layer model. Neither was tuned to the other.\n\n"
        + markdown(header, body)
    )


def seed_table(measured: Rows, trace_name: str) -> str:
    """Ten programs on {expert, GPU} level x {planning, serving} windows, beside the published numbers."""
    header = [
        "program",
        "published expert / combined",
        "expert planning",
        "expert serving, 5 pairs",
        "expert serving, 11 pairs",
        "GPU planning",
        "GPU serving, 5 pairs",
        "GPU serving, 11 pairs",
        "duplicates per window",
        "legal maps",
    ]
    body = []
    for generation, method in enumerate(SEED_PROGRAMS):
        at = on_windows(measured, trace_name, method)
        served = [r["serving"] for r in at if r["serving"]]

        def mean(of: list[dict[str, float]], metric: str) -> str:
            return f"{fmean(r[metric] for r in of):.4f}"

        planned = [r["planning"] for r in at[:ALL_PAIRS]]
        body.append(
            [
                f"{generation} `{method}`",
                " / ".join(PUBLISHED[method]),
                mean(planned, "expert"),
                mean(served[:SEED_PAIRS], "expert"),
                mean(served, "expert"),
                mean(planned, "gpu"),
                mean(served[:SEED_PAIRS], "gpu"),
                mean(served, "gpu"),
                f"{fmean(r['duplicates'] for r in at):.1f}",
                f"{sum(r['status'] == 'legal' for r in at)}/{len(at)}",
            ]
        )
    control = on_windows(measured, trace_name, CONTROL)
    served_control = [r["serving"]["expert"] for r in control]
    body.append(
        [
            "negative control: snake as published (defective map)",
            ".254285 / .63",
            f"{fmean(r['planning']['expert'] for r in control):.4f}",
            f"{fmean(served_control[:SEED_PAIRS]):.4f}",
            f"{fmean(served_control):.4f}",
            "-",
            "-",
            "-",
            "-",
            f"{sum(r['status'] == 'legal' for r in control)}/{len(control)}",
        ]
    )
    optimum = on_windows(measured, trace_name, OPTIMUM)[:ALL_PAIRS]
    limit = fmean(certified_balancedness(r, trace_name, w) for w, r in enumerate(optimum))
    body.append(["upper limit of any hierarchical map (certified)", "", "", "", "", f"{limit:.4f}", "", "", "", ""])
    title = f"## Seed protocol, {trace_name} trace ({TRACE_TITLES[trace_name]})"
    layers = len(optimum[0]["lower"])
    return (
        f"{title}\n\nBalancedness, {layers} layers x 256 experts on 288 slots, 32 GPUs, 4 nodes, 8 groups; "
        "means over window pairs.\n\n" + markdown(header, body)
    )


def classes(measured: Rows) -> list[tuple[int, ...]]:
    """Return the numbers of the programs that the expert-level metric cannot tell apart, to the last bit."""
    found: dict[tuple[object, ...], list[int]] = {}
    for number, method in enumerate(SEED_PROGRAMS):
        at = (row for name in TRACES for row in on_windows(measured, name, method))
        seen = tuple((row["planning"]["expert"], (row["serving"] or {}).get("expert")) for row in at)
        found.setdefault(seen, []).append(number)
    return [tuple(members) for members in found.values()]


def classes_text(measured: Rows) -> str:
    """Return these classes as text."""
    return ", ".join(f"{{{', '.join(map(str, members))}}}" for members in classes(measured))


def class_note(measured: Rows) -> str:
    """Say which programs the expert-level metric cannot tell apart, checked to the last bit."""
    lines = [
        f"* Programs {{{', '.join(map(str, members))}}}: expert-level balancedness equal to the last bit on every window of both "
        "traces, planned on and served."
        for members in classes(measured)
    ]
    return (
        "### Why some programs cannot be told apart\n\n"
        + "\n".join(lines)
        + "\n\nA slot carries `w_e / c_e`, so the slots' mean is `W / S` and their maximum "
        "`max w_e / c_e`: the expert-level metric sees the replica counts and nothing of the packing on GPUs. "
        "Programs 0, 1, 3, 6, 7, 8 put the same groups on the same nodes (two to a node: LPT and the snake pair heaviest with "
        "lightest, and no checked swap improves that) and then use Adams' method; 5 and 9 do the same with Hamilton's. "
        "Programs 2 and 4 differ only because their unchecked swaps move groups to worse nodes."
    )


def _distinct(seen: Callable[[Row], Any]) -> Number:
    """How many of the ten programs differ, by what is seen of each, on the planning windows of both traces."""

    def compute(rows: Rows) -> str:
        values = [tuple(seen(row) for trace in TRACES for row in on_windows(rows, trace, method)) for method in SEED_PROGRAMS]
        return str(len(set(values)))

    return Number(tuple((SUITE, "*", method) for method in SEED_PROGRAMS), compute)


def _mean(method: str, metric: str) -> Number:
    """Mean planning balancedness of a program on the calibrated trace."""
    return Number(
        ((SUITE, "calibrated-*", method),),
        lambda rows: f"{fmean(row['planning'][metric] for row in on_windows(rows, 'calibrated', method)[:-1]):.4f}",
    )


def _legal(rows: Rows) -> str:
    return f"{sum(row['status'] == 'legal' for row in rows)} of {len(rows)}"


STUDY = Study(
    SUITE,
    job="reproduce",
    about="ten seed programs, certified hierarchical optima and the negative control on every window of both traces",
    cells=cells,
    shapes=(
        solver(),
        Shape("heuristic", PLANNED | BALANCE),
        Shape("negative control", CELL | BALANCE | {"deployment": "object of anything", "policy": "text", "upper": "null"}),
    ),
    instance=instance,
    table=table,
    figures=("gap_distribution", "window_balance"),
    numbers={
        "certified-gap": Number(
            ((SUITE, "*", OPTIMUM),), lambda rows: f"{100 * max(row['parameters']['target_gap'] for row in rows):g}"
        ),
        "distinct-expert": _distinct(lambda row: row["planning"]["expert"]),
        "expert-classes": Number(tuple((SUITE, "*", method) for method in SEED_PROGRAMS), classes_text),
        "distinct-makespans": _distinct(lambda row: tuple(row.upper)),
        "snake-expert": _mean("eplb_snake_pipeline", "expert"),
        "base-expert": _mean(BASE, "expert"),
        "snake-gpu": _mean("eplb_snake_pipeline", "gpu"),
        "base-gpu": _mean(BASE, "gpu"),
        "unchecked-expert": _mean("local_swap_refine_in_packing", "expert"),
        "control-legal": Number(((SUITE, "*", CONTROL),), _legal),
    },
)
