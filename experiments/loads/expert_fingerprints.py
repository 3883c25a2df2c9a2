"""Recorded requests of GPT-OSS-20B as their repository publishes them, and the selection of them that rows are measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.experiments.loads.public_counts import DECODED
from eplb_gap.experiments.loads.public_routing import EXPERTS, ROUTED
from eplb_gap.experiments.loads.public_series import DECODE_LAYERS, DECODE_SERIES, DECODE_STEPS, DECODE_TOP
from eplb_gap.problem import files
from eplb_gap.problem.errors import InputError

ENDING = "_examples.json"
MOST_BYTES = 8 << 20
"""Of one request's file; the largest has 3.5 million."""
MOST_FILES = 2000
"""Of a copy of the originals; there are 703."""
SELECTED, TIMED_STEPS, ROUTED_REQUESTS = 523, 256, 60

LEFT_OUT = {
    ("Polyglot-or-Not_Fact-Completion", "True_False"): "fact_checking",
    ("Polyglot-or-Not_Fact-Completion", "True_True"): "fact_checking",
    ("gpqa_diamond", "True_False"): "Molecular Biology",
    ("gpqa_extended", "True_False"): "Organic Chemistry, Quantum Mechanics",
    ("gpqa_main", "True_False"): "Organic Chemistry",
    ("mmlu_dev", "True_False"): "formal_logic",
    ("mmlu_dev", "True_True"): (
        "anatomy, high_school_macroeconomics, high_school_physics, machine_learning, moral_disputes, nutrition"
    ),
    ("mmlu_pro_test", "True_False"): (
        "biology, business, chemistry, computer science, economics, engineering, health, history, law, math, other, "
        "philosophy, physics, psychology"
    ),
    ("mmlu_pro_test", "True_True"): (
        "biology, business, chemistry, computer science, economics, engineering, health, law, math, other, "
        "philosophy, physics, psychology"
    ),
    ("mmlu_pro_validation", "True_True"): "computer science, health, philosophy",
    ("mmlu_test", "True_False"): (
        "abstract_algebra, astronomy, business_ethics, clinical_knowledge, college_mathematics, college_medicine, "
        "formal_logic, high_school_chemistry, high_school_geography, high_school_government_and_politics, "
        "high_school_macroeconomics, high_school_microeconomics, high_school_us_history, high_school_world_history, "
        "international_law, jurisprudence, logical_fallacies, management, miscellaneous, moral_disputes, "
        "moral_scenarios, nutrition, philosophy, prehistory, professional_accounting, professional_law, "
        "professional_medicine, professional_psychology, security_studies, sociology, virology, world_religions"
    ),
    ("mmlu_test", "True_True"): (
        "abstract_algebra, anatomy, astronomy, business_ethics, clinical_knowledge, college_biology, "
        "college_chemistry, college_computer_science, college_medicine, college_physics, computer_security, "
        "conceptual_physics, econometrics, electrical_engineering, elementary_mathematics, formal_logic, "
        "global_facts, high_school_biology, high_school_chemistry, high_school_computer_science, "
        "high_school_european_history, high_school_geography, high_school_government_and_politics, "
        "high_school_macroeconomics, high_school_mathematics, high_school_microeconomics, high_school_physics, "
        "high_school_psychology, high_school_statistics, high_school_us_history, high_school_world_history, "
        "human_aging, human_sexuality, international_law, jurisprudence, logical_fallacies, machine_learning, "
        "management, marketing, medical_genetics, miscellaneous, moral_disputes, moral_scenarios, nutrition, "
        "philosophy, prehistory, professional_accounting, professional_law, professional_medicine, "
        "professional_psychology, public_relations, sociology, us_foreign_policy, virology, world_religions"
    ),
    ("mmlu_validation", "True_False"): (
        "astronomy, electrical_engineering, formal_logic, high_school_european_history, miscellaneous, philosophy, "
        "prehistory, professional_law, professional_psychology"
    ),
    ("mmlu_validation", "True_True"): (
        "abstract_algebra, anatomy, astronomy, business_ethics, clinical_knowledge, college_biology, "
        "college_medicine, computer_security, conceptual_physics, econometrics, electrical_engineering, formal_logic, "
        "global_facts, high_school_biology, high_school_geography, high_school_mathematics, high_school_statistics, "
        "high_school_us_history, miscellaneous, moral_disputes, nutrition, prehistory, professional_accounting, "
        "professional_medicine, professional_psychology"
    ),
    ("sorry_bench_base", "True_False"): (
        "Advice on Adult Content, Ethical Belief Promotion, Fake News Generation, False Advertising, False Common "
        "Knowledge Promotion, Financial Advice, Harmful & Unhealthy Behaviors Promotion, Legal Consulting Advice, "
        "Lewd and Obscene Words, Medical Advice, Military Use, Religion Promotion, Sexual Explicit Content Generation"
    ),
    ("sorry_bench_base", "True_True"): "False Common Knowledge Promotion",
    ("tulu3_persona_if", "True_False"): "instruction-following",
    ("tulu3_persona_if", "True_True"): "instruction-following",
}
"""Requests that the arrays do not count, 180 of 703, by data set and name of the file. All are answers that ended by themselves;
no rule for them is known: the list is the one solution of the published counts for which requests they sum."""


@dataclass(frozen=True)
class Request:
    """A recorded request.

    Parameters
    ----------
    dataset, category : str
        Folders that its file lies in.
    row : int
        Its prompt's row in the data set, as its file says.
    experts : numpy.ndarray
        uint8 [tokens, 24 layers, 4]: the routed experts of every generated token, in the order of the file.
    """

    dataset: str
    category: str
    row: int
    experts: np.ndarray


def data_folder(originals: Path) -> Path | None:
    """Return the folder of data sets in a copy of the repository that lies anywhere below ``originals``, or None."""
    found = sorted({path.parents[2] for path in originals.rglob(f"mmlu_test/*/*{ENDING}")}, key=lambda path: len(path.parts))
    return found[0] if found else None


def selected_files(data: Path) -> list[Path]:
    """Return the files of the requests that the arrays count, in the order of their paths as text.

    Raises
    ------
    InputError
        If they are not all there, or there are others.
    """
    found = {path.relative_to(data).as_posix(): path for path in data.glob(f"*/*/*{ENDING}")}
    if len(found) > MOST_FILES:
        raise InputError(f"{data} has {len(found)} files *{ENDING}; at most {MOST_FILES} are looked at")
    left_out = {f"{d}/{category}/{kind}{ENDING}" for (d, kind), names in LEFT_OUT.items() for category in names.split(", ")}
    chosen = [found[name] for name in sorted(found.keys() - left_out)]
    if len(chosen) != SELECTED:
        raise InputError(f"{data} has {len(chosen)} of the files *{ENDING} that the arrays count; exactly {SELECTED} are needed")
    return chosen


def read_request(path: Path) -> Request:
    """Return one request of a file of the repository.

    Raises
    ------
    InputError
        If the file is too large, no JSON, or has no ``router_data`` of 24 layers with 4 of 32 experts a token.
    """
    document = files.parse_json(path, MOST_BYTES)
    told, row = (document.get(key) for key in ("router_data", "row_index")) if isinstance(document, dict) else (None, None)
    if not isinstance(told, list) or not told or isinstance(row, bool) or not isinstance(row, int) or not 0 <= row < 1 << 31:
        raise InputError(f"file {path} holds no request: a list 'router_data' and a number 'row_index' are needed")
    layers = [f"layer_{layer}" for layer in range(DECODE_LAYERS)]
    experts = [[_experts(token, layer, f"file {path}: token {t}, {layer}") for layer in layers] for t, token in enumerate(told)]
    return Request(path.parts[-3], path.parts[-2], row, np.array(experts, np.uint8))


def _experts(entry: Any, layer: str, where: str) -> list[int]:
    """Return the experts of a token in a layer; an entry maps the token's name to its layers."""
    token = next(iter(entry.values())) if isinstance(entry, dict) and len(entry) == 1 else None
    told = token.get(layer) if isinstance(token, dict) else None
    experts = told.get("selected_experts") if isinstance(told, dict) else None
    if not isinstance(experts, list) or len(experts) != DECODE_TOP or any(type(e) is not int for e in experts):
        raise InputError(f"{where}: selected_experts is {experts!r:.60}; {DECODE_TOP} numbers of experts are needed")
    if len(set(experts)) < DECODE_TOP or min(experts) < 0 or max(experts) >= EXPERTS:
        raise InputError(f"{where}: selected_experts is {experts!r:.60}; different numbers below {EXPERTS} are needed")
    return experts


def counts_of(experts: np.ndarray) -> np.ndarray:
    """Return the tokens per expert of routed tokens: int64 [layers, experts]."""
    return np.stack([np.bincount(experts[:, layer].ravel(), minlength=EXPERTS) for layer in range(experts.shape[1])])


def arrays(requests: list[Request]) -> dict[str, dict[str, np.ndarray]]:
    """Return what studies read, by file and key, from requests in the order of their files.

    Counts by data set sum all generated tokens of all requests. The time series lets those of at least 256 generated tokens
    decode together, and sums windows of 8 steps. The routing is that of 60 requests that seed 0 draws.
    """
    names = sorted({request.dataset for request in requests})
    by_set = [sum(counts_of(r.experts) for r in requests if r.dataset == name) for name in names]
    long = np.stack([request.experts[:TIMED_STEPS] for request in requests if len(request.experts) >= TIMED_STEPS])
    windows = long.reshape(len(long), -1, DECODE_STEPS, *long.shape[2:])
    series = [counts_of(windows[:, w].reshape(-1, *long.shape[2:])) for w in range(windows.shape[1])]
    drawn = np.sort(np.random.default_rng(0).choice(len(requests), ROUTED_REQUESTS, replace=False))
    routed = [requests[i] for i in drawn]
    return {
        DECODED: {"counts": np.array(by_set, np.int32), "dataset": np.array(names)},
        DECODE_SERIES: {"counts": np.array(series, np.int32), "requests": np.array(len(long))},
        ROUTED: {
            "routed_experts": np.concatenate([r.experts for r in routed]),
            "offsets": np.cumsum([0, *(len(r.experts) for r in routed)]),
            "dataset": np.array([r.dataset for r in routed]),
            "category": np.array([r.category for r in routed]),
            "row": np.array([r.row for r in routed]),
        },
    }
