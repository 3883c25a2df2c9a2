"""EPLB algorithm for SGLang: the planner of this project in place of the built-in ones.

SGLang calls ``rebalance_experts`` of its module ``sglang.srt.eplb.eplb_algorithms`` by that name, at the start for
``--init-expert-location`` and in every rebalance; :func:`install` replaces it there. Call it in every process before the server
starts. Nothing of SGLang is imported before that. Which algorithm the server was started with decides only between the
hierarchical and the global policy; the method comes from the environment: :mod:`eplb_gap.heuristics.plugins`.

SGLang does not hand the map in use over, so that every plan is made anew and nothing is relabelled; only a controller
(:mod:`eplb_gap.heuristics.plugins.hosted`) takes the last map that it returned to be in use.
"""

from __future__ import annotations

from typing import Any

import torch

from eplb_gap.heuristics.plugins.calls import prepare
from eplb_gap.heuristics.plugins.planning import replan
from eplb_gap.heuristics.tensors import as_tensors, as_weight
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError

MODULE = "sglang.srt.eplb.eplb_algorithms"
HIERARCHICAL = ("deepseek_hierarchical", "deepseek_vec_hierarchical")
ELASTIC = "elasticity_aware"
GLOBAL = ("deepseek", "deepseek_vec", ELASTIC)


def rebalance_experts(
    tokens_per_expert: Any,
    num_physical_experts: int,
    num_local_physical_experts: int,
    num_groups: int | None,
    num_nodes: int,
    algorithm: Any,
    active_ranks: Any = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Plan replicas and their slots for every layer.

    Parameters
    ----------
    tokens_per_expert : Tensor [steps, layers, experts]
        Loads, finite and non-negative, of any type, on any device; the sum over the steps is planned on.
    num_physical_experts : int
        Physical experts S.
    num_local_physical_experts : int
        Slots of one GPU; a divisor of S.
    num_groups : int or None
        None for a model without group-limited routing.
    num_nodes : int
    algorithm : EplbAlgorithm or str
        By its name: hierarchical for :data:`HIERARCHICAL`, global for :data:`GLOBAL`; "auto" is hierarchical where the groups
        divide over the nodes, otherwise global.
    active_ranks : array_like of bool [gpus], optional
        Ranks that are alive. Where one is dead, the plan is global, as SGLang's own is, and the slots of dead ranks get expert 0,
        which nothing is routed to.

    Returns
    -------
    tuple of Tensor
        ``phy2log``, ``log2phy`` and ``logcnt``, int64 on the CPU; see :func:`eplb_gap.heuristics.tensors.as_tensors`.

    Raises
    ------
    InputError
        If an argument or the environment is not what it must be, or the ranks that are alive cannot hold every expert.
    """
    history = as_weight(tokens_per_expert, "tokens_per_expert", "steps, layers, experts")
    num_gpus = _num_gpus(num_physical_experts, num_local_physical_experts)
    deployment = _deployment(history.shape[2], num_physical_experts, num_gpus, num_groups, num_nodes, _name(algorithm))
    alive = [True] * num_gpus if active_ranks is None else _alive(active_ranks, num_gpus)
    if all(alive):
        return as_tensors(replan(history, deployment, None))
    left = Deployment(history.shape[2], slots_per_gpu=[num_local_physical_experts] * num_gpus, active=alive)
    return as_tensors(replan(history, left, None))


def install() -> None:
    """Replace ``rebalance_experts`` of SGLang's module ``sglang.srt.eplb.eplb_algorithms``.

    Raises
    ------
    InputError
        If the module or its function is missing, or the environment is not what
        :func:`eplb_gap.heuristics.plugins.settings.settings` needs.
    """
    try:
        import sglang.srt.eplb.eplb_algorithms as algorithms
    except ImportError as error:
        raise InputError(
            f"sglang.srt.eplb.eplb_algorithms cannot be imported ({error}); a SGLang that has it is needed"
        ) from None
    if not hasattr(algorithms, "rebalance_experts"):
        raise InputError("sglang.srt.eplb.eplb_algorithms has no rebalance_experts; a SGLang that has it is needed")
    prepare("sglang")
    algorithms.rebalance_experts = _installed


def _installed(
    tokens_per_expert: Any,
    num_physical_experts: int,
    num_local_physical_experts: int,
    num_groups: int | None,
    num_nodes: int,
    algorithm: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Plan as :func:`rebalance_experts`; which ranks are alive, SGLang keeps to itself and must be asked."""
    active_ranks = None
    if _name(algorithm) == ELASTIC:
        from sglang.srt.elastic_ep.elastic_ep import get_elastic_ep_state

        active_ranks = get_elastic_ep_state().active_ranks
    return rebalance_experts(
        tokens_per_expert, num_physical_experts, num_local_physical_experts, num_groups, num_nodes, algorithm, active_ranks
    )


def _name(algorithm: Any) -> str:
    return str(getattr(algorithm, "name", algorithm))


def _num_gpus(physical: int, local: int) -> int:
    if not isinstance(local, int) or local < 1 or physical % local:
        raise InputError(
            f"num_local_physical_experts is {local!r}; a positive divisor of num_physical_experts = {physical} is needed"
        )
    return physical // local


def _deployment(
    num_experts: int, num_slots: int, num_gpus: int, num_groups: int | None, num_nodes: int, algorithm: str
) -> Deployment:
    if algorithm not in (*HIERARCHICAL, *GLOBAL, "auto"):
        raise InputError(f"algorithm is {algorithm!r}; one of auto, {', '.join((*HIERARCHICAL, *GLOBAL))} is needed")
    if num_nodes < 1:
        raise InputError(f"num_nodes is {num_nodes}; a positive integer is needed")
    if algorithm not in GLOBAL and num_groups is not None and num_groups % num_nodes == 0:
        return Deployment(num_experts, num_slots, num_gpus, num_nodes=num_nodes, num_groups=num_groups)
    if algorithm in HIERARCHICAL:
        raise InputError(
            f"num_groups is {num_groups}; a multiple of num_nodes = {num_nodes} is needed for algorithm {algorithm!r}"
        )
    return Deployment(num_experts, num_slots, num_gpus)


def _alive(active_ranks: Any, num_gpus: int) -> list[bool]:
    alive = torch.as_tensor(active_ranks).detach().to("cpu").numpy()
    if alive.shape != (num_gpus,):
        raise InputError(f"active_ranks has shape {alive.shape}; one entry for each of the {num_gpus} ranks is needed")
    return [bool(flag) for flag in alive]
