"""Balancers of others to compare with: those of serving systems, and the published evolved programs.

Written anew from descriptions of the algorithms. DeepSeek's own, which vLLM's default repeats, is the seed program
``initial_program``. The compiled ones are imported when first used.
"""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.config import PipelineConfig, Stage
from eplb_gap.heuristics.methods import GLOBAL, Heuristic, by_name, from_config, run_by_layer
from eplb_gap.heuristics.programs.evolved_programs import EVOLVED_PROGRAMS
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement

DEEPSEEK = PipelineConfig()
SGLANG_VEC = PipelineConfig(replication="largest_relief", replicas=Stage("snake"))


def tensorrt_llm(weight: np.ndarray, deployment: Deployment) -> Placement:
    """TensorRT-LLM's load balancer: Adams' counts and LPT."""
    from eplb_gap.heuristics.programs.tensorrt_llm import plan_layer

    return run_by_layer(plan_layer, weight, deployment)


def vllm_ascend(weight: np.ndarray, deployment: Deployment) -> Placement:
    """vLLM-Ascend's default policy: one redundant expert per GPU, then every expert once by LPT."""
    from eplb_gap.heuristics.programs.vllm_ascend import plan_layer

    return run_by_layer(plan_layer, weight, deployment)


def _more_extras_than_gpus(deployment: Deployment) -> str | None:
    extra = deployment.num_slots - deployment.num_experts
    if extra <= deployment.num_gpus:
        return None
    return (
        f"method is 'vllm-ascend', which puts one extra replica on a GPU; num_slots - num_experts is {extra}, "
        f"at most num_gpus = {deployment.num_gpus} is allowed"
    )


def flashlb(weight: np.ndarray, deployment: Deployment) -> Placement:
    """FlashLB of vLLM-Ascend on one window of loads: a tree search over how many extra replicas each block of experts gets."""
    from eplb_gap.heuristics.programs.flashlb import plan_layer

    return run_by_layer(plan_layer, weight, deployment)


PEERS = EVOLVED_PROGRAMS | by_name(
    (
        Heuristic("sglang-vec", from_config(SGLANG_VEC)),
        Heuristic("tensorrt-llm", tensorrt_llm, GLOBAL, compiled=True),
        Heuristic("vllm-ascend", vllm_ascend, GLOBAL, refuses=_more_extras_than_gpus, compiled=True),
        Heuristic("flashlb", flashlb, GLOBAL, compiled=True),
    )
)
"""Heuristics by name."""
ELASTIC = by_name((Heuristic("sglang-elastic", from_config(DEEPSEEK), GLOBAL),))
"""SGLang's ``elasticity_aware`` by name: DeepSeek's global algorithm on the GPUs that are alive.

:func:`eplb_gap.heuristics.rebalance` leaves out dead GPUs and fills their slots with expert 0 for every method, as SGLang does;
with all GPUs alive it is the seed program ``initial_program`` under the global policy.
"""
