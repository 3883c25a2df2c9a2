"""Gaps of the search's programs on counts of public models, for who has their files (part of ``eplb-gap bench solvers``)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median

import numpy as np

from eplb_gap import heuristics, solvers
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.public_counts import DECODED, SOURCES, VARIABLE, counts_by_domain
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import PROVEN, finding
from eplb_gap.experiments.measuring.rows import Fields, Row, Rows
from eplb_gap.experiments.measuring.solve_cells import deployment_fields, proof_fields
from eplb_gap.experiments.studies.numbers import Number, percent, span
from eplb_gap.experiments.studies.public_levels import NOT_GIVEN
from eplb_gap.experiments.studies.study import Drawn, Study
from eplb_gap.heuristics.own import FAST
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.digest import array_sha256
from eplb_gap.problem.formats.containers import npz
from eplb_gap.problem.fractions import fractions
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.metrics import optimality_gap
from eplb_gap.problem.validation import verify

SUITE = "public_gaps"
BASE, SWAPS = "initial_program", "multi_swap_refinement_balanced_packing"
METHODS = (*SEED_PROGRAMS, *FAST)
SLOTS = {5: "five", 3: "three", 2: "two"}
"""Slots per GPU, from the most to the fewest."""
DEPLOYMENTS = {
    "OLMoE-1B-7B": {5: Deployment(64, 80, 16), 3: Deployment(64, 96, 32), 2: Deployment(64, 96, 48)},
    "Mixtral-8x7B": {5: Deployment(8, 10, 2), 3: Deployment(8, 12, 4), 2: Deployment(8, 12, 6)},
    "GPT-OSS-20B": {5: Deployment(32, 40, 8), 3: Deployment(32, 48, 16), 2: Deployment(32, 48, 24)},
}
"""By model and slots per GPU: a quarter more slots than experts at five, half more at three and two."""
LIMITS = {5: (1e-4, 0.75), 3: (1e-4, 0.75), 2: (1e-3, 2.5)}
"""Target gap and seconds a layer by slots per GPU: with two, bounds take longer."""


def families(model: str, folder: Path) -> np.ndarray:
    """Return the tokens per expert of a model by family: int64 [families, layers, experts].

    Parameters
    ----------
    model : str
        Key of :data:`DEPLOYMENTS`. OLMoE's and Mixtral's families are five domains of three layers each; GPT-OSS has one, its 24
        layers summed over eleven data sets.
    folder : Path

    Raises
    ------
    InputError
        If the file is missing or holds no such counts.
    """
    if model != "GPT-OSS-20B":
        return counts_by_domain(model, folder)
    path = folder / DECODED
    with npz.open_archive(path) as archive:
        by_data_set = as_loads(npz.read_entry(archive, "counts", path), f"{path}, counts", 3)
    return np.asarray(by_data_set.sum(axis=0, keepdims=True))


def public_cell(model: str, slots: int, folder: str | None) -> Fields:
    """Bound every layer and plan it with every program; without a folder say that there is none."""
    deployment = DEPLOYMENTS[model][slots]
    target_gap, seconds = LIMITS[slots]
    fields: Fields = {
        "kind": "finding",
        "hash": "",
        "source": SOURCES[model],
        "sha256": "",
        "deployment": deployment.as_dict(),
        "parameters": {"target_gap": target_gap, "seconds_a_layer": seconds, "workers": 1},
        "status": NOT_GIVEN,
        "families": 0,
        **{name: [] for name in ("upper", "lower", "gap")},
        **proof_fields([]),
        "programs": {},
    }
    if folder is None:
        return fields
    by_family = families(model, Path(folder))
    loads = by_family.reshape(-1, by_family.shape[2])
    solution = solvers.solve(loads, deployment, "auto", target_gap, seconds * len(loads))
    verify(solution.placement, loads, deployment)
    return fields | {
        "hash": deployment_fields(deployment, loads)["hash"],
        "sha256": array_sha256(loads),
        "status": solution.status,
        "families": len(by_family),
        "upper": fractions(solution.upper),
        "lower": fractions(solution.lower),
        "gap": solution.gap,
        **proof_fields(solution.proof),
        "programs": {
            method: fractions(verify(heuristics.rebalance(loads, deployment, method), loads, deployment)) for method in METHODS
        },
    }


def cells() -> list[Cell]:
    """Return a cell per model and deployment; the folder is the one that the environment names."""
    folder = os.environ.get(VARIABLE)
    return [
        Cell(SUITE, instance_name(model, slots), "auto", public_cell, {"model": model, "slots": slots, "folder": folder})
        for model in DEPLOYMENTS
        for slots in SLOTS
    ]


def instance_name(model: str, slots: int) -> str:
    """Return model and deployment as text."""
    shape = DEPLOYMENTS[model][slots]
    return f"{model} {shape.num_experts}/{shape.num_slots}/{shape.num_gpus}"


def find(measured: Rows, model: str, slots: int) -> Row:
    """Return the row of a model and deployment."""
    return measured.one(suite=SUITE, instance=instance_name(model, slots))


def gaps(row: Row, method: str) -> list[float]:
    """Return the gap of a method's makespan to the proven bound, layer by layer."""
    return [optimality_gap(up, low) for up, low in zip(rows.fractions_in(row["programs"][method]), row.lower, strict=True)]


def given(measured: Rows) -> bool:
    """Return whether every row of the suite was measured."""
    return all(row["status"] != NOT_GIVEN for row in measured.where(suite=SUITE))


def _mean_and_worst(found: list[float], digits: int = 1) -> str:
    return f"{percent(fmean(found), digits)} / {percent(max(found), digits)}"


def _detail(row: Row, method: str) -> list[str]:
    found = gaps(row, method)
    above = [float(up - low) for up, low in zip(rows.fractions_in(row["programs"][method]), row.lower, strict=True)]
    of_family = np.reshape(found, (row["families"], -1)).mean(axis=1)
    return [
        f"{row['instance']}, `{method}`",
        str(len(found)),
        percent(fmean(found)),
        percent(median(found)),
        percent(max(found)),
        " / ".join(percent(value, 1) for value in of_family) if len(of_family) > 1 else "-",
        f"{100 * sum(gap == 0 for gap in found) / len(found):.0f}",
        f"{fmean(above):,.0f}",
        percent(max(row["gap"]), 3),
    ]


def table(measured: Rows) -> str:
    """Return the gaps of DeepSeek's algorithm and of ours in detail and of all programs in short, as Markdown."""
    text = (
        "## Gaps on counts of public models\n\nTokens per expert of OLMoE-1B-7B and Mixtral-8x7B, five domains of text (arxiv, "
        "book, c4, github, wikipedia) by three layers, and of GPT-OSS-20B, 24 layers, summed over eleven data sets; global "
        f"policy, as these models have no groups. Measured where `{VARIABLE}` names a folder with the files; the project ships "
        "none of them, and averages none of these rows with its own loads"
    )
    if not given(measured):
        return f"{text}: {NOT_GIVEN}.\n"
    found = {(model, slots): find(measured, model, slots) for model in DEPLOYMENTS for slots in SLOTS}
    digests = ", ".join(f"{model} {found[model, 5]['sha256'][:16]}" for model in DEPLOYMENTS)
    header = [
        "experts/slots/GPUs, method",
        "layers",
        "mean gap, %",
        "median",
        "worst",
        "mean of each domain",
        "layers at the bound, %",
        "fullest GPU above the bound, tokens",
        "worst gap of the solver, %",
    ]
    detail = [_detail(row, method) for row in found.values() for method in (BASE, SWAPS, "fast")]
    short = [[f"`{method}`", *(_mean_and_worst(gaps(row, method), 2) for row in found.values())] for method in METHODS]
    return (
        f"{text} (starts of the sha256 of the arrays: {digests}). Gaps are to the solver's proven bound, so that what is left of "
        f"its own gap is counted against the methods; a token is counted once for every expert that it is routed to.\n\n"
        f"{markdown(header, detail)}\n\nMean / worst gap, %:\n\n"
        + markdown(["method", *(row["instance"] for row in found.values())], short)
        + "\n"
    )


def readme_table(measured: Rows) -> str:
    """Return mean and worst gap of three methods by model and slots per GPU."""
    if not given(measured):
        return f"{NOT_GIVEN[0].upper()}{NOT_GIVEN[1:]}: `{VARIABLE}` names no folder."
    body = []
    for model in DEPLOYMENTS:
        for slots in SLOTS:
            row = find(measured, model, slots)
            body.append([row["instance"], str(slots), *(_mean_and_worst(gaps(row, name)) for name in (BASE, SWAPS, "fast"))])
    return markdown(
        [
            "model, experts/slots/GPUs",
            "slots per GPU",
            "DeepSeek's algorithm, mean / worst gap, %",
            "with two best swaps (program 8)",
            "`fast`",
        ],
        body,
    )


def _number(models: tuple[str, ...], slots: tuple[int, ...], compute: Callable[[list[Row]], str]) -> Number:
    """A number from the rows of some models and slots per GPU; it says where they were not measured."""
    patterns = tuple((SUITE, instance_name(model, per_gpu), "auto") for model in models for per_gpu in slots)
    return Number(patterns, lambda found: compute(list(found)) if given(found) else NOT_GIVEN)


def _means(method: str) -> Callable[[list[Row]], str]:
    return lambda found: span((100 * fmean(gaps(row, method)) for row in found), 1)


def _worst(method: str) -> Callable[[list[Row]], str]:
    return lambda found: percent(max(max(gaps(row, method)) for row in found), 0)


OLMOE, *OTHERS = DEPLOYMENTS
STUDY = Study(
    SUITE,
    job="solvers",
    about="gaps of the search's programs on counts of public models, which are not shipped",
    cells=cells,
    shapes=(
        finding(
            {
                "deployment": "object of anything",
                "source": "text",
                "sha256": "text",
                "families": "integer",
                "upper": "list of p/q",
                "lower": "list of p/q",
                "gap": "list of number",
                **PROVEN,
                "programs": "object of list of p/q",
            },
            *("upper", "lower", "gap", "status", *PROVEN),
        ),
    ),
    table=table,
    figures=("public_gaps",),
    numbers={
        **{f"public-gap-{name}": _number((OLMOE,), (slots,), _means(BASE)) for slots, name in SLOTS.items()},
        "public-gap-worst": _number((OLMOE,), tuple(SLOTS), _worst(BASE)),
        "public-gap-others": _number(tuple(OTHERS), tuple(SLOTS), _means(BASE)),
        "public-gap-fast": _number(tuple(DEPLOYMENTS), (5, 3), _means("fast")),
        "public-gap-fast-two": _number(tuple(DEPLOYMENTS), (2,), _means("fast")),
    },
    blocks={"public gaps": Drawn((SUITE,), readme_table)},
)
