"""Balancers of others to compare with: those of serving systems, and the published evolved programs.

Written anew, and compared with the released packages layer by layer (:mod:`eplb_gap.experiments.hosts.peers_check`). DeepSeek's
own is the seed program ``initial_program``; vLLM and SGLang have rewritten it for speed. The compiled ones are imported when
first used.
"""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.config import PipelineConfig, Stage
from eplb_gap.heuristics.methods import GLOBAL, Heuristic, by_name, from_config, run_by_layer
from eplb_gap.heuristics.programs.evolved_programs import EVOLVED_PROGRAMS
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement

_HEAP = Stage("heap_lpt")
SGLANG = PipelineConfig(groups=_HEAP, replicas=_HEAP)
VLLM = PipelineConfig(groups=_HEAP, replicas=_HEAP, dtype="float64")  # which divides in float64


def sglang_vec(weight: np.ndarray, deployment: Deployment) -> Placement:
    """SGLang's ``deepseek_vec`` on the steps of a history: replicas by the largest of every step, dealt in a snake."""
    from eplb_gap.heuristics.programs.sglang_vec import plan

    return plan(weight, deployment)


def tensorrt_llm(weight: np.ndarray, deployment: Deployment) -> Placement:
    """TensorRT-LLM's load balancer: Adams' counts and LPT."""
    from eplb_gap.heuristics.programs.tensorrt_llm import plan_layer

    return run_by_layer(plan_layer, weight, deployment)


def vllm_ascend(weight: np.ndarray, deployment: Deployment) -> Placement:
    """vLLM-Ascend's policy 1: one redundant expert per GPU, then every expert once by LPT."""
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
    """FlashLB of vLLM-Ascend on windows: a tree search over how many extra replicas each block of experts gets."""
    from eplb_gap.heuristics.programs.flashlb import plan

    return plan(weight, deployment)


def swift_balance(weight: np.ndarray, deployment: Deployment) -> Placement:
    """SwiftBalance of vLLM-Ascend on the map that this host starts with."""
    from eplb_gap.heuristics.programs.swift_balance import initial_map

    deployment.require_regular("swift-balance")
    row = initial_map(deployment.num_experts, deployment.num_slots, deployment.num_gpus)
    return swift_balance_from(weight, deployment, Placement(np.tile(row, (len(weight), 1)), deployment.num_experts))


def swift_balance_from(weight: np.ndarray, deployment: Deployment, previous: Placement) -> Placement:
    """SwiftBalance of vLLM-Ascend: the map in use, improved by few copies between any two GPUs.

    Parameters
    ----------
    weight : ndarray [layers, experts]
        Gains are measured by the mean GPU load of the first layer.
    deployment : Deployment
        Regular.
    previous : Placement
        A legal map of it.
    """
    from eplb_gap.heuristics.programs.swift_balance import improve_layer

    deployment.require_regular("swift-balance")
    phy2log = previous.phy2log.copy()
    mean = float(weight[0].sum()) / deployment.num_gpus
    for loads, slots in zip(np.ascontiguousarray(weight, dtype=np.float64), phy2log, strict=True):
        improve_layer(loads, deployment.num_gpus, mean, slots)
    return Placement(phy2log, deployment.num_experts)


def _more_slots_than_experts(deployment: Deployment) -> str | None:
    if deployment.slots_per_gpu <= deployment.num_experts:
        return None
    return (
        f"method is 'swift-balance', which puts no expert on a GPU twice; a GPU has {deployment.slots_per_gpu} slots, "
        f"at most num_experts = {deployment.num_experts} are allowed"
    )


PEERS = EVOLVED_PROGRAMS | by_name(
    (
        Heuristic("sglang-vec", sglang_vec, history=True, compiled=True),
        Heuristic("tensorrt-llm", tensorrt_llm, GLOBAL, compiled=True),
        Heuristic("vllm-ascend", vllm_ascend, GLOBAL, refuses=_more_extras_than_gpus, compiled=True),
        Heuristic(
            "swift-balance",
            swift_balance,
            GLOBAL,
            compiled=True,
            refuses=_more_slots_than_experts,
            improve=swift_balance_from,
        ),
        Heuristic("flashlb", flashlb, GLOBAL, history=True, compiled=True),
    )
)
"""Heuristics by name."""
REWRITTEN = by_name((Heuristic("vllm-default", from_config(VLLM)), Heuristic("sglang-deepseek", from_config(SGLANG))))
"""DeepSeek's algorithm as vLLM and SGLang have rewritten it: the maps of ``initial_program`` but for rounding, in less time."""
ELASTIC = by_name((Heuristic("sglang-elastic", from_config(SGLANG), GLOBAL),))
"""SGLang's ``elasticity_aware`` by name: DeepSeek's global algorithm on the GPUs that are alive.

:func:`eplb_gap.heuristics.rebalance` leaves out dead GPUs and fills their slots with expert 0 for every method, as SGLang does;
with all GPUs alive it is ``sglang-deepseek`` under the global policy.
"""
