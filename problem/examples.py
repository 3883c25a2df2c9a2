"""The worked examples that others published: their loads and deployments."""

from __future__ import annotations

import numpy as np

from eplb_gap.problem.deployment import Deployment

README_LOADS = (
    (90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86),
    (20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27),
)
"""Two layers, from the README of DeepSeek's EPLB."""
FLASHLB_LOADS = (600, 560, 120, 120, 20, 10, 10, 10)
"""One layer, from the description of FlashLB."""

EXAMPLES: dict[str, tuple[np.ndarray, Deployment]] = {
    "deepseek-readme": (np.array(README_LOADS), Deployment.preset("deepseek-readme")),
    "flashlb": (np.array([FLASHLB_LOADS]), Deployment(8, 16, 8)),
}
"""Name -> loads int64 [layers, experts] and deployment."""
