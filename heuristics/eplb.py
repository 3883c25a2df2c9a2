"""Drop-in replacement of DeepSeek's ``eplb.rebalance_experts``: same arguments, same three tensors."""

from __future__ import annotations

from typing import Any

import torch

from eplb_gap.heuristics.registry import DEFAULT_METHOD, choose
from eplb_gap.heuristics.tensors import as_tensors, as_weight
from eplb_gap.problem.deployment import Deployment


def rebalance_experts(
    weight: Any,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    old_global_expert_indices: Any = None,
    *,
    method: str = DEFAULT_METHOD,
    config: Any = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Plan replicas and their slots for every layer.

    Parameters
    ----------
    weight : Tensor or array_like [layers, experts]
        Load statistics: finite, non-negative, integer or floating point, on any device.
    num_replicas : int
        Physical experts S; a multiple of ``num_gpus``.
    num_groups, num_nodes, num_gpus : int
        Hierarchical where the groups divide over the nodes, otherwise global.
    old_global_expert_indices : optional
        Ignored: every plan here is made anew; :mod:`eplb_gap.heuristics.plugins.vllm` moves as few replicas as possible from it.
    method : str, default "fast"
        Key of :data:`eplb_gap.heuristics.METHODS`; "initial_program" is DeepSeek's own algorithm.
    config : path, FastConfig or PipelineConfig, optional
        What to run in place of a named method; see :func:`eplb_gap.heuristics.rebalance`. A file is read anew in every call.

    Returns
    -------
    phy2log : Tensor
        Logical expert of every slot, int64 [layers, num_replicas].
    log2phy : Tensor
        Slots of every expert by replica rank, int64 [layers, experts, max count], padded with -1.
    logcnt : Tensor
        Replicas of every expert, int64 [layers, experts].

    Raises
    ------
    InputError
        If the weights are not finite, negative or not two-dimensional, the numbers do not divide, or method or
        config is not what it must be.

    Examples
    --------
    >>> import torch
    >>> from eplb_gap import rebalance_experts
    >>> weight = torch.tensor([[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86]])  # a layer of DeepSeek's README
    >>> phy2log, log2phy, logcnt = rebalance_experts(weight, 16, 4, 2, 8)
    >>> phy2log.shape, int(logcnt.sum())
    (torch.Size([1, 16]), 16)
    """
    array = as_weight(weight, "weight", "layers, experts")
    deployment = Deployment(array.shape[1], num_replicas, num_gpus, num_nodes=num_nodes, num_groups=num_groups)
    return as_tensors(choose(method, config)(array, deployment))
