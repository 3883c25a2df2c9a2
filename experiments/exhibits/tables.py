"""Tables of the main job as Markdown, from rows alone."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from statistics import fmean

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.traces import FLAGSHIP, TRACE_TITLES, TRACES, WINDOWS, gap_cases, trace
from eplb_gap.experiments.measuring.rows import Row, case_bounds, layer_gaps, pick, protocol_rows
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS

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
SUITES = ("protocol", "gap", "runtime")
SEED_PAIRS, ALL_PAIRS = 5, WINDOWS - 1
EQUAL_CLASSES = ((0, 1, 6, 7, 8), (5, 9))


def tables(rows: list[Row]) -> str:
    """Render all tables as Markdown."""
    parts = ["# Tables of the main job", "All numbers come from the rows of one run; loads are named with every table."]
    parts += [trace_table(), *(seed_table(rows, name) for name in TRACES)]
    parts += [class_note(rows), gap_table(rows), proof_table(rows), loss_table(rows), runtime_table(rows)]
    return "\n\n".join(parts) + "\n"


def write_tables(rows: list[Row], path: Path) -> str:
    """Render all tables, write them to ``path``, and return the Markdown."""
    text = tables(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return text


def certified_balancedness(row: Row, trace_name: str, window: int, side: str = "lower") -> float:
    """Return the planning balancedness (GPU) of a certified optimum; from the lower bounds no placement exceeds it."""
    loads = trace(trace_name).window(window)
    makespans = sum((Fraction(value) for value in row[side]), Fraction(0))
    return float(Fraction(int(loads.sum()), row["deployment"]["num_gpus"]) / makespans)


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


def seed_table(rows: list[Row], trace_name: str) -> str:
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
        at = protocol_rows(rows, trace_name, method)
        served = [r["serving"] for r in at if r["serving"]]

        def mean(of: list[Row], metric: str) -> str:
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
    control = protocol_rows(rows, trace_name, "defective_snake")
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
    optimum = protocol_rows(rows, trace_name, "auto")[:ALL_PAIRS]
    limit = fmean(certified_balancedness(r, trace_name, w) for w, r in enumerate(optimum))
    body.append(["upper limit of any hierarchical map (certified)", "", "", "", "", f"{limit:.4f}", "", "", "", ""])
    title = f"## Seed protocol, {trace_name} trace ({TRACE_TITLES[trace_name]})"
    layers = len(optimum[0]["lower"])
    return (
        f"{title}\n\nBalancedness, {layers} layers x 256 experts on 288 slots, 32 GPUs, 4 nodes, 8 groups; "
        "means over window pairs.\n\n" + markdown(header, body)
    )


def class_note(rows: list[Row]) -> str:
    """Say which programs the expert-level metric cannot tell apart, checked to the last bit."""
    names = list(SEED_PROGRAMS)
    lines = []
    for members in EQUAL_CLASSES:
        equal = all(
            len(
                {
                    (r["planning"]["expert"], (r["serving"] or {}).get("expert"))
                    for r in (pick(rows, "protocol", f"{t}-{w:02d}", names[m]) for m in members)
                }
            )
            == 1
            for t in TRACES
            for w in range(WINDOWS)
        )
        verdict = "equal to the last bit" if equal else "NOT equal"
        lines.append(
            f"* Programs {{{', '.join(map(str, members))}}}: expert-level balancedness {verdict} on every window of both traces."
        )
    return (
        "### Why some programs cannot be told apart\n\n"
        + "\n".join(lines)
        + "\n\nA slot carries `w_e / c_e`, so the slots' mean is `W / S` and their maximum "
        "`max w_e / c_e`: the expert-level metric sees the replica counts and nothing of the packing on GPUs. "
        "Programs 0, 1, 6, 7, 8 put the same groups on the same nodes (two to a node: LPT pairs heaviest with lightest, "
        "and no checked swap improves that) and then use Adams' method; 5 and 9 do the same with Hamilton's. "
        "Programs 2 and 4 differ only because their unchecked swaps move groups to worse nodes."
    )


def gap_table(rows: list[Row]) -> str:
    """Mean and worst optimality gap of every program to the best proven lower bound, per family of instances."""
    cases = gap_cases()
    header = ["program", *(case.family for case in cases.values())]
    body = []
    for method in SEED_PROGRAMS:
        cells = []
        for name in cases:
            gaps = layer_gaps(pick(rows, "gap", name, method), case_bounds(rows, name))
            cells.append(f"{100 * fmean(gaps):.2f} / {100 * max(gaps):.2f}")
        body.append([f"`{method}`", *cells])
    return (
        "## Optimality gap\n\nMean / worst gap in % over the layers, to the best proven lower bound (planning window).\n\n"
        + markdown(header, body)
    )


README_CASES = (
    "deepseek-readme",
    "flashlb",
    "flagship-recorded",
    "hot-recorded",
    "flagship-calibrated",
    "flagship-global-calibrated",
)


def readme_table(rows: list[Row]) -> str:
    """The gap table of the README: deterministic programs against bounds that do not depend on a time limit."""
    header = ["program", *(gap_cases()[name].family for name in README_CASES)]
    body = []
    for generation, method in enumerate(SEED_PROGRAMS):
        gaps = [layer_gaps(pick(rows, "gap", name, method), case_bounds(rows, name)) for name in README_CASES]
        body.append([f"{generation} `{method}`", *(f"{100 * fmean(of):.2f} / {100 * max(of):.2f}" for of in gaps)])
    return markdown(header, body)


def proof_table(rows: list[Row]) -> str:
    """How far the solvers get on each instance of the gap table."""
    body = []
    for name, case in gap_cases().items():
        for row in (r for r in rows if r["suite"] == "gap" and r["instance"] == name and r["kind"] == "solver"):
            optimal = sum(s == "optimal" for s in row["status"])
            proofs = sorted(set(row["proof"]))
            body.append(
                [
                    case.family,
                    row["method"],
                    f"{optimal}/{len(row['status'])}",
                    f"{100 * fmean(row['gap']):.4f} / {100 * max(row['gap']):.4f}",
                    "; ".join(proofs),
                ]
            )
    return "## What is proven\n\n" + markdown(
        ["instance", "solver", "layers optimal", "solver's own gap in %, mean / worst", "proof of the lower bound"], body
    )


def loss_table(rows: list[Row]) -> str:
    """Where the serving balance of DeepSeek's algorithm is lost, with its explanation."""
    return (
        "## Where `initial_program` loses serving balance\n\n"
        "Points of GPU-level balancedness, means over 11 window pairs, from 1 down to the best hierarchical placement found for "
        "the serving window, to the program replanned on it, to the program planned on the window before.\n\n" + loss_rows(rows)
    )


def loss_rows(rows: list[Row]) -> str:
    """The loss of serving balance in points of GPU balancedness, one row per trace."""
    body = []
    for name in TRACES:
        at, optimum = protocol_rows(rows, name, "initial_program"), protocol_rows(rows, name, "auto")
        serving = fmean(r["serving"]["gpu"] for r in at[:ALL_PAIRS])
        replanned = fmean(r["planning"]["gpu"] for r in at[1:])
        best = fmean(certified_balancedness(r, name, w, "upper") for w, r in enumerate(optimum[1:], start=1))
        parts = 1 - best, best - replanned, replanned - serving
        gaps = [
            gap
            for row, solved in zip(at, optimum, strict=True)
            for gap in layer_gaps(row, [Fraction(value) for value in solved["lower"]])
        ]
        body.append(
            [
                name,
                f"{100 * fmean(gaps):.2f} / {100 * max(gaps):.2f} %",
                f"{serving:.4f}",
                *(f"{100 * part:.2f}" for part in parts),
                f"{100 * parts[2] / (1 - serving):.1f} %",
            ]
        )
    header = [
        "trace",
        "planning gap, mean / worst layer",
        "serving balancedness",
        "lost to hierarchy and integrality",
        "lost to the heuristic",
        "lost to forecasting",
        "forecasting's share",
    ]
    return markdown(header, body)


def runtime_table(rows: list[Row]) -> str:
    """Median time of every program for a 58-layer window and its ratio to ``initial_program`` in the same invocation."""

    def milliseconds(row: Row, of: Callable[[list[float]], float]) -> str:
        return f"{1000 * of(row['seconds']):.1f}"

    timed = {r["method"]: r for r in rows if r["suite"] == "runtime"}
    body = [
        [
            f"`{m}`",
            f"{1000 * timed[m]['median_seconds']:.1f}",
            f"{milliseconds(timed[m], min)} to {milliseconds(timed[m], max)}",
            f"{timed[m]['ratio']:.3f}",
        ]
        for m in SEED_PROGRAMS
    ]
    rounds = timed["initial_program"]["parameters"]["rounds"]
    return (
        "## Runtime\n\nOne window of the calibrated trace (58 layers, hierarchical), one thread per program, "
        f"{rounds} interleaved rounds after a warm-up. Only the ratios carry over to other machines.\n\n"
        + markdown(["program", "median ms", "spread ms", "ratio to `initial_program`"], body)
    )
