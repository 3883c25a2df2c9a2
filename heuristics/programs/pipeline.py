"""The pipeline all seed programs share: groups to nodes, replication per node, replicas to GPUs (DeepSeek's EPLB)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from eplb_gap.heuristics.config import PipelineConfig, Stage
from eplb_gap.heuristics.programs.packing import PACKERS, Packer, Packing, epsilon_lpt, penalty_lpt
from eplb_gap.heuristics.programs.replication import REPLICATORS, fix_up
from eplb_gap.heuristics.programs.swaps import RULES, SwapRule, best_of_candidates, rank_by_item, refine
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement


def run(config: PipelineConfig, weight: Tensor, deployment: Deployment) -> Placement:
    """Plan all layers with one heuristic.

    Parameters
    ----------
    config : PipelineConfig
    weight : Tensor
        Loads, any real dtype [layers, experts]; taken on the CPU in the type of the configuration, float32 unless it says so.
    deployment : Deployment
        Where its groups do not divide over its nodes, one node with one group is planned instead (global policy).

    Returns
    -------
    Placement
        Replica ranks are numbered in the order in which replication handed the replicas out.
    """
    shape = deployment if deployment.policy == "hierarchical" else deployment.as_global()
    weight = weight.to(device="cpu", dtype=getattr(torch, config.dtype))
    layers, experts = weight.shape
    nodes = shape.num_nodes

    # Experts of every node, [layers * nodes, experts per node], ascending so that replication ties go to the lower logical id.
    node_of_group = _pack(config.groups, weight.view(layers, shape.num_groups, -1).sum(dim=2), None, nodes).pack
    groups = node_of_group.sort(dim=1, stable=True).indices[:, :, None]
    on_node = (groups * shape.experts_per_group + torch.arange(shape.experts_per_group)).view(layers, experts)
    node_weight = weight.gather(1, on_node).view(layers * nodes, experts // nodes)
    on_node = on_node.view(layers * nodes, experts // nodes)

    replication = REPLICATORS[config.replication](node_weight, shape.slots_per_node)
    if config.fix_ups:
        replication = fix_up(node_weight, replication, config.fix_ups)
    size = (node_weight / replication.count).gather(1, replication.expert)
    packing = _pack(config.replicas, size, replication.expert, shape.gpus_per_node)

    slot = packing.pack * shape.slots_per_gpu + packing.rank
    logical = on_node.gather(1, replication.expert)
    phy2log = torch.empty_like(logical).scatter_(1, slot, logical)
    ranks = torch.empty_like(logical).scatter_(1, slot, replication.rank)
    return Placement(phy2log.view(layers, -1).numpy(), experts, ranks.view(layers, -1).numpy())


def _pack(stage: Stage, weight: Tensor, label: Tensor | None, packs: int) -> Packing:
    """Pack the rows by the rules of a stage; without labels every item is of its own kind."""
    if label is None:
        label = torch.arange(weight.shape[1]).expand_as(weight)
    packing = _packer(stage)(weight, label, packs)
    if stage.swap_rule is not None:
        refine(weight, packing, packs, _swap_rule(stage, stage.swap_rule), min(stage.swap_steps, weight.shape[1] // packs))
    if stage.rank_by_item:
        rank_by_item(packing, packs)
    return packing


def _packer(stage: Stage) -> Packer:
    if stage.packer == "epsilon_lpt":
        return partial(epsilon_lpt, epsilon=stage.epsilon)
    if stage.packer == "penalty_lpt":
        return partial(penalty_lpt, penalty=stage.penalty)
    return PACKERS[stage.packer]


def _swap_rule(stage: Stage, name: str) -> SwapRule:
    return partial(best_of_candidates, candidates=stage.candidates) if name == "candidates" else RULES[name]
