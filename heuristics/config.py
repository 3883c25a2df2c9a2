"""A heuristic as data: which rule each stage of the pipeline uses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """Rules of one packing stage.

    Parameters
    ----------
    packer : str
        Key of :data:`heuristics.packing.PACKERS`.
    swap_rule : str or None
        Key of :data:`heuristics.swaps.RULES`; None for no refinement.
    swap_steps : int
        Most exchanges per row; a pack of k items gets at most ``min(swap_steps, k)``.
    rank_by_item : bool
        Whether a refined pack lists its items by ascending id rather than in the order they came.
    """

    packer: str = "lpt"
    swap_rule: str | None = None
    swap_steps: int = 0
    rank_by_item: bool = False


@dataclass(frozen=True)
class PipelineConfig:
    """One heuristic: groups to nodes, replication, replicas to GPUs.

    Parameters
    ----------
    groups : Stage
        Packing of expert groups on nodes.
    replication : str
        Key of :data:`heuristics.replication.REPLICATORS`.
    replicas : Stage
        Packing of replicas on the GPUs of a node.
    """

    groups: Stage = Stage()
    replication: str = "adams"
    replicas: Stage = Stage()
