"""The list of all studies: whoever adds one adds its file's name here."""

from __future__ import annotations

import importlib

from eplb_gap.experiments.studies.study import Study

MODULES = (
    "protocol",
    "gaps",
    "losses",
    "program_times",
    "levels",
    "public_levels",
    "public_gaps",
    "pcmax",
    "method_profile",
    "baseline_profile",
    "agreement",
    "prices",
    "two_slots",
    "counts",
    "verifiable",
    "head_to_head",
    "planner_times",
    "shapes",
    "scaling",
    "recommendations",
    "recommendations_seeds",
    "relabelling",
    "serving_times",
    "history_serving",
    "history_seeds",
    "public_serving",
    "split_serving",
    "sample_average_gaps",
    "migration",
    "elastic",
    "step_flattery",
    "decomposition",
    "regimes",
    "redundancy",
    "held_out",
    "drift_survival",
    "controllers",
    "control_limits",
    "control_times",
    "public_control",
    "time_answers",
    "visit_front",
    "policy_times",
    "node_visits",
    "activated_experts",
    "activated_times",
    "timed_maps",
    "public_routing",
)
"""Files of this folder, in the order in which their tables stand."""


def _declared(module: str) -> Study:
    study: Study = importlib.import_module(f"{__package__}.{module}").STUDY
    return study


# By name, not by import: a cell's code then rests on its own study and not on the list of all.
STUDIES: dict[str, Study] = {module: _declared(module) for module in MODULES}
"""Every study by the name of its module."""


def script(module: str) -> str:
    """Return the path of a study's source in the project."""
    return f"experiments/studies/{module}.py"
