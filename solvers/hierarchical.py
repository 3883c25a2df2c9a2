"""The hierarchical policy as a decomposition: bottleneck set partition of the groups over nodes, any engine on the nodes.

Every node is a flat instance given by the groups it hosts, so a layer is a partition of the groups into equal sets whose
worst node is best. Node problems get closed-form bounds first; the partition with the smallest largest bound is a lower
bound for the layer, and only its nodes are worth solving. Solving raises bounds until a partition's maps meet them.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from eplb_gap.problem.bounds.bounds import Bound, best_joint_bound
from eplb_gap.problem.bounds.partition import bottleneck_cover
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engine import Finding, Incumbent, Limits, Search, drive

Groups = tuple[int, ...]
MAX_NODE_PROBLEMS = 20_000


class NodeProblems:
    """The node problems of one layer: an incumbent for every set of groups that a node can host.

    Parameters
    ----------
    loads : ndarray
        int64 [experts].
    deployment : Deployment
        With the hierarchical policy.
    deadline : float, default inf
        On the clock of :func:`time.monotonic`: what is left then is left out, and the problems are not :attr:`complete`.

    Raises
    ------
    InputError
        If there are more than 20,000 different sets.
    """

    def __init__(self, loads: np.ndarray, deployment: Deployment, deadline: float = math.inf) -> None:
        count = math.comb(deployment.num_groups, deployment.groups_per_node)
        if count > MAX_NODE_PROBLEMS:
            raise InputError(
                f"num_groups is {deployment.num_groups} with {deployment.groups_per_node} groups per node: {count} node "
                f"problems; at most {MAX_NODE_PROBLEMS} are enumerated"
            )
        self.deployment = deployment
        self.incumbents: dict[Groups, Incumbent] = {}
        self.exhausted: set[Groups] = set()
        for groups in itertools.combinations(range(deployment.num_groups), deployment.groups_per_node):
            instance = Instance.of_node(loads[self.experts(groups)], deployment)
            self.incumbents[groups] = Incumbent(instance, bound=best_joint_bound(instance))
            if time.monotonic() >= deadline:
                break
        self.complete = len(self.incumbents) == count

    def experts(self, groups: Groups) -> list[int]:
        """Return the logical experts of some groups, ascending."""
        size = self.deployment.experts_per_group
        return [expert for group in groups for expert in range(group * size, (group + 1) * size)]

    def best_partition(self) -> list[Groups]:
        """Return the partition of the groups whose largest node bound is smallest; ties by enumeration order."""
        values = {groups: incumbent.bound.value for groups, incumbent in self.incumbents.items()}
        found, _ = bottleneck_cover(values, self.deployment.num_groups)
        return sorted(found, key=lambda groups: -values[groups])

    def offer_layer(self, slots: Sequence[int]) -> None:
        """Give the nodes of a legal hierarchical map to their incumbents."""
        size, per_node = self.deployment.experts_per_group, self.deployment.slots_per_node
        for start in range(0, len(slots), per_node):
            node = [int(e) for e in slots[start : start + per_node]]
            groups = tuple(sorted({e // size for e in node}))
            local = {expert: index for index, expert in enumerate(self.experts(groups))}
            self.incumbents[groups].offer_map([local[e] for e in node])

    def layer_map(self, partition: list[Groups]) -> tuple[int, ...] | None:
        """Return the map of all nodes of a partition one after the other; None while a node has none."""
        slots: list[int] = []
        for groups in sorted(partition):
            node = self.incumbents[groups].slots
            if node is None:
                return None
            experts = self.experts(groups)
            slots.extend(experts[e] for e in node)
        return tuple(slots)

    def bound(self, partition: list[Groups]) -> Bound:
        """Return the layer's bound, given :meth:`best_partition`: no partition has all its node bounds below it.

        The witness lists the nodes at or above it.
        """
        value = self.incumbents[partition[0]].bound.value
        nodes = [
            {"groups": list(groups), "value": str(i.bound.value), "kind": i.bound.kind, "witness": i.bound.witness}
            for groups, i in self.incumbents.items()
            if i.bound.value >= value
        ]
        return Bound(value, "hierarchical", {"nodes": nodes})


def search_layer(
    loads: np.ndarray,
    deployment: Deployment,
    search: Search,
    limits: Limits,
    initial: Sequence[int] | None,
    on_progress: Callable[[], None],
) -> Iterator[Finding]:
    """Yield better maps of a layer and stronger bounds until target, deadline or the end of what the engine can do.

    Parameters
    ----------
    loads : ndarray
        int64 [experts] of the layer.
    deployment : Deployment
        With the hierarchical policy.
    search : Search
        Runs on the nodes.
    limits : Limits
    initial : sequence of int or None
        A legal map to start from.
    on_progress : callable
        Called when a node improves.
    """
    if math.comb(deployment.num_groups, deployment.groups_per_node) > MAX_NODE_PROBLEMS:
        return  # the planners' maps and the bound of the layer without nodes stand
    problems = NodeProblems(loads, deployment, limits.deadline if initial is not None else math.inf)
    if not problems.complete:
        return  # what the layer was started with is all that its time is enough for
    if initial is not None:
        problems.offer_layer(initial)
    best: Fraction | None = None
    while True:
        partition = problems.best_partition()
        bound = problems.bound(partition)
        yield bound
        enough = bound.value * (1 + Fraction(limits.target_gap))
        open_nodes = []
        for groups in partition:
            node = problems.incumbents[groups]
            if not node.reaches(enough):
                node.offer_map(greedy_map(node.instance, float(enough)))
            if not node.reaches(enough) and not node.proven and groups not in problems.exhausted:
                open_nodes.append(groups)
        value = max(problems.incumbents[groups].upper or Fraction(0) for groups in partition)
        if best is None or value < best:
            best = value
            slots = problems.layer_map(partition)
            if slots is not None:
                yield slots
        if best <= enough or not open_nodes or limits.seconds_left <= 0:
            return
        # The node with the largest bound decides whether this partition stays the best: it comes first and alone.
        groups = open_nodes[0]
        drive(search, problems.incumbents[groups], replace(limits, enough=enough), on_progress)
        if limits.seconds_left > 0:
            problems.exhausted.add(groups)
