"""The balancers of the released packages as calls that can be compared with our own: one record each.

A record is loaded in a process of its own, as two versions of a package do not go into one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from eplb_gap.experiments.hosts.packages import SGLANG, VLLM, VLLM_ASCEND, Release
from eplb_gap.experiments.hosts.peer_cases import KINDS, Case
from eplb_gap.experiments.hosts.shells import shell
from eplb_gap.problem.deployment import Policy
from eplb_gap.problem.metrics import duplicates
from eplb_gap.problem.placement import Placement

Call = Callable[[], Any]
"""What is timed: one call of the original, which returns its map in any form of as many numbers."""
Loaded = Callable[[Case], Call]
"""Makes the arguments of the original of a case."""
Discards = Callable[[Placement, Case], np.ndarray]
"""Says of a map of the original in which layers its host throws it away."""


@dataclass(frozen=True)
class Original:
    """A balancer of a released package.

    Parameters
    ----------
    name : str
        What the package calls it.
    release : Release
    method : str
        Ours, a key of :data:`eplb_gap.HEURISTICS`.
    load : callable
        ``load(root)`` imports it from the unpacked package and returns a :data:`Loaded`.
    policy : {"global", "hierarchical"}
    steps : int
        Steps of the histories that it is given.
    dead : bool
        Whether it plans with dead GPUs.
    kinds : tuple of str
        Kinds of loads that it can plan on at all.
    discards : callable, optional
        ``discards(map, case)`` says in which layers its host throws the map away, bool [layers].
    most_failed : float
        Part of all layers of which it may return no map that can be used.
    """

    name: str
    release: Release
    method: str
    load: Callable[[Path], Loaded]
    policy: Policy = "global"
    steps: int = 1
    dead: bool = False
    kinds: tuple[str, ...] = KINDS
    discards: Discards | None = None
    most_failed: float = 0.0

    @property
    def key(self) -> str:
        """What the table calls it."""
        asked = [self.policy, *([f"{self.steps} steps"] if self.steps > 1 else []), *(["dead GPUs"] if self.dead else [])]
        return f"{self.name} ({', '.join(asked)})"


def as_map(raw: Any, case: Case) -> Placement:
    """Return what an original returned as a placement; slots of dead GPUs are known by the deployment."""
    rows = np.asarray(raw, dtype=np.int64).reshape(len(case.totals), case.deployment.num_slots)
    return Placement(rows, case.deployment.num_experts)


def _vllm(root: Path) -> Loaded:
    shell(root, ["vllm.distributed.eplb.policy.*"], ["vllm"])
    from vllm.distributed.eplb.policy.default import DefaultEplbPolicy

    def prepare(case: Case) -> Call:
        shape, loads = case.deployment, torch.from_numpy(case.loads)
        in_use = torch.from_numpy(case.in_use.phy2log)

        def call() -> Any:
            found = DefaultEplbPolicy.rebalance_experts(
                loads, shape.num_slots, shape.num_groups, shape.num_nodes, shape.num_gpus, in_use
            )
            return found if torch.is_tensor(found) else found[0]  # older releases return three tables

        return call

    return prepare


def _deepseek(root: Path) -> Loaded:
    """DeepSeek's own text, as a release without policies has it."""
    shell(root, ["vllm.distributed.eplb.rebalance_algo"], ["vllm"])
    from vllm.distributed.eplb.rebalance_algo import rebalance_experts

    def prepare(case: Case) -> Call:
        shape, loads = case.deployment, torch.from_numpy(case.loads)
        return lambda: rebalance_experts(loads, shape.num_slots, shape.num_groups, shape.num_nodes, shape.num_gpus)[0]

    return prepare


class _ElasticState:
    """Stands for the manager that says which ranks are alive."""

    active_ranks: torch.Tensor

    @classmethod
    def instance(cls) -> type[_ElasticState]:
        return cls


def _sglang(algorithm: str, root: Path) -> Loaded:
    given = {"sglang.srt.elastic_ep.elastic_ep": {"ElasticEPStateManager": _ElasticState}}
    shell(root, ["sglang.srt.eplb.eplb_algorithms*"], ["sglang"], given)
    from sglang.srt.eplb.eplb_algorithms import EplbAlgorithm, rebalance_experts

    chosen = EplbAlgorithm[algorithm]

    def prepare(case: Case) -> Call:
        shape = case.deployment
        steps = torch.from_numpy(case.loads if case.loads.ndim == 3 else case.loads[None])
        local = shape.num_slots // shape.num_gpus

        def call() -> Any:
            _ElasticState.active_ranks = torch.tensor(shape.active)
            return rebalance_experts(steps, shape.num_slots, local, shape.num_groups, shape.num_nodes, chosen)[0]

        return call

    return prepare


def _vllm_ascend(policy: Callable[[], Any], root: Path) -> Loaded:
    given = {"vllm.logger": {"logger": logging.getLogger("vllm")}}
    shell(root, ["vllm_ascend.eplb.core.policy.*"], ["vllm_ascend", "vllm", "torch_npu"], given)
    torch.npu = SimpleNamespace(device_count=lambda: 1)
    chosen = policy()

    def prepare(case: Case) -> Call:
        table = case.in_use.by_gpu(case.deployment.num_gpus)
        workload = torch.from_numpy(_by_slot(case).reshape(*case.loads.shape[:-1], *table.shape[1:]))
        in_use = torch.from_numpy(table)
        return lambda: chosen().rebalance_experts(in_use, workload)[2]

    return prepare


def _by_slot(case: Case) -> np.ndarray:
    """Return what every slot of the map in use served, int64 [..., layers, slots]: whole tokens, the first replica's the rest."""
    counts = np.take_along_axis(case.in_use.counts(), case.in_use.phy2log, axis=1)
    loads = np.take_along_axis(case.loads, np.broadcast_to(case.in_use.phy2log, (*case.loads.shape[:-1], counts.shape[1])), -1)
    return np.asarray(loads // counts + np.where(case.in_use.ranks == 0, loads % counts, 0))


def _default() -> Any:
    from vllm_ascend.eplb.core.policy.policy_default_eplb import DefaultEplb

    return DefaultEplb


def _swift() -> Any:
    from vllm_ascend.eplb.core.policy.policy_swift_balancer import SwiftBalanceEplb

    return SwiftBalanceEplb


def _flashlb() -> Any:
    from vllm_ascend.eplb.core.policy.policy_flashlb import FlashLB

    return FlashLB


def _without_a_place(found: Placement, case: Case) -> np.ndarray:
    """Return where FlashLB found a replica no GPU without its expert: on the last GPU, which the host refuses, or it gave up."""
    kept = (found.phy2log == case.in_use.phy2log).all(axis=1)
    return np.asarray(kept | (duplicates(found, case.deployment) > 0))


STEPS = 8
HIERARCHICAL: Policy = "hierarchical"
_flashlb_original = partial(
    Original,
    "FlashLB",
    VLLM_ASCEND,
    "flashlb",
    partial(_vllm_ascend, _flashlb),
    kinds=tuple(kind for kind in KINDS if kind != "one"),  # many more replicas than GPUs: it writes beyond its arrays
    discards=_without_a_place,
    most_failed=0.04,  # 30 and 32 of 1000 in 0.23.0
)
ORIGINALS = (
    Original("DeepSeek's EPLB", VLLM[3], "initial_program", _deepseek),
    Original("DeepSeek's EPLB", VLLM[3], "initial_program", _deepseek, HIERARCHICAL),
    *(Original("default", release, "vllm-default", _vllm) for release in VLLM[:3]),
    *(Original("default", release, "vllm-default", _vllm, HIERARCHICAL) for release in VLLM[:3]),
    Original("deepseek", SGLANG, "sglang-deepseek", partial(_sglang, "deepseek")),
    Original("deepseek_hierarchical", SGLANG, "sglang-deepseek", partial(_sglang, "deepseek_hierarchical"), HIERARCHICAL),
    Original("deepseek_vec", SGLANG, "sglang-vec", partial(_sglang, "deepseek_vec")),
    Original("deepseek_vec", SGLANG, "sglang-vec", partial(_sglang, "deepseek_vec"), steps=STEPS),
    Original("deepseek_vec_hierarchical", SGLANG, "sglang-vec", partial(_sglang, "deepseek_vec_hierarchical"), HIERARCHICAL),
    Original(
        "deepseek_vec_hierarchical", SGLANG, "sglang-vec", partial(_sglang, "deepseek_vec_hierarchical"), HIERARCHICAL, STEPS
    ),
    Original("elasticity_aware", SGLANG, "sglang-elastic", partial(_sglang, "elasticity_aware"), dead=True),
    Original(
        "elasticity_aware_hierarchical",
        SGLANG,
        "sglang-deepseek",
        partial(_sglang, "elasticity_aware_hierarchical"),
        HIERARCHICAL,
    ),
    Original("DefaultEplb", VLLM_ASCEND, "vllm-ascend", partial(_vllm_ascend, _default)),
    Original("SwiftBalance", VLLM_ASCEND, "swift-balance", partial(_vllm_ascend, _swift)),
    _flashlb_original(),
    _flashlb_original(steps=STEPS),
)
"""In the order of the table. TensorRT-LLM's balancer is C++: its published test vectors are tests of ours."""
