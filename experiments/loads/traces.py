"""The traces that are measured on, by name, and the instances of the gap table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from eplb_gap.experiments.loads.synthetic import calibrated_trace, family_loads
from eplb_gap.experiments.measuring import rows
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.examples import EXAMPLES
from eplb_gap.problem.loads import LoadTrace

RECORDED_TRACE = rows.RESULTS / "traces" / "recorded-windows.npz"
RECORDED_ROUTING = rows.RESULTS / "traces" / "recorded-routing.npz"
"""Of the model of ``recorded-rhythm.npz``, in every 30th step of the traffic of the recorded trace."""


TRACES = ("recorded", "calibrated")
TRACE_TITLES = {"recorded": "recorded from a small model trained for this purpose", "calibrated": "synthetic, calibrated, seed 0"}


FLAGSHIP = Deployment.preset("dsv3-prefill-ep32")


POLICIES = {"hierarchical": FLAGSHIP, "global": FLAGSHIP.as_global()}
WINDOWS = 12


DRAWN_CASE = "hot-recorded"  # the maps that the figure of one layer shows are kept in the rows


HOTTEST_WINDOW = 9  # of the recorded trace: text of languages the model was never trained on


EXACT_SECONDS = 40.0


CERTIFIED_GAP = 1e-4


@cache
def trace(name: str) -> LoadTrace:
    """Return the recorded trace that the project ships, or the synthetic calibrated one of seed 0."""
    return LoadTrace.load(RECORDED_TRACE) if name == "recorded" else calibrated_trace(0)


def name_of(deployment: Deployment) -> str:
    """Return experts/slots/GPUs and the policy where it is hierarchical."""
    shape = f"{deployment.num_experts}/{deployment.num_slots}/{deployment.num_gpus}"
    return f"{shape} hierarchical" if deployment.policy == "hierarchical" else shape


@dataclass(frozen=True)
class Case:
    """A named instance of the gap table: loads of one or more layers and their deployment."""

    name: str
    family: str
    loads: np.ndarray
    deployment: Deployment

    @property
    def limits(self) -> tuple[float, float]:
        """Target gap and seconds of a solve: small instances are solved to the end."""
        exact = self.deployment.num_slots <= 16
        return (0.0, EXACT_SECONDS * len(self.loads)) if exact else (CERTIFIED_GAP, EXACT_SECONDS)


@cache
def gap_cases() -> dict[str, Case]:
    """Return the instances of the gap table by name."""
    (readme_loads, readme), (flashlb_loads, flashlb) = EXAMPLES["deepseek-readme"], EXAMPLES["flashlb"]
    cases = [
        Case("deepseek-readme", "DeepSeek's README example", readme_loads, readme),
        Case("deepseek-readme-global", "DeepSeek's README example, global", readme_loads, readme.as_global()),
        Case("flashlb", "FlashLB's example", flashlb_loads, flashlb),
    ]
    small = Deployment(6, 9, 3), Deployment(8, 12, 4)
    for deployment in small:
        loads = np.array([family_loads("ln1.0", deployment.num_experts, 10_000, seed) for seed in range(6)])
        name = f"small-{deployment.num_experts}-{deployment.num_slots}-{deployment.num_gpus}"
        cases.append(
            Case(
                name,
                f"lognormal (synthetic) {deployment.num_experts}/{deployment.num_slots}/{deployment.num_gpus}",
                loads,
                deployment,
            )
        )
    node = Deployment(64, 72, 8)
    for name in TRACES:
        window = trace(name).window(-2)
        cases.append(Case(f"node-{name}", f"one node of the flagship, {name}", window[:, :64], node))
        cases.append(Case(f"flagship-{name}", f"flagship hierarchical, {name}", window, FLAGSHIP))
        if name == "recorded":
            cases.append(
                Case(DRAWN_CASE, "flagship hierarchical, recorded, hottest window", trace(name).window(HOTTEST_WINDOW), FLAGSHIP)
            )
        cases.append(Case(f"flagship-global-{name}", f"flagship global, {name}", window, FLAGSHIP.as_global()))
    return {case.name: case for case in cases}
