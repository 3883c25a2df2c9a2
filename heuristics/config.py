"""A heuristic as data: which rule each stage of the pipeline uses, or how far the project's own planner goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Stage:
    """Rules of one packing stage.

    Parameters
    ----------
    packer : str
        Key of :data:`eplb_gap.heuristics.programs.packing.PACKERS`.
    swap_rule : str or None
        Key of :data:`eplb_gap.heuristics.programs.swaps.RULES`; None for no refinement.
    swap_steps : int
        Most exchanges per row; a pack of k items gets at most ``min(swap_steps, k)``.
    rank_by_item : bool
        Whether a refined pack lists its items by ascending id rather than in the order they came.
    candidates : int
        Items of either pack that the swap rule "candidates" tries; no other rule looks at it.
    epsilon : float
        How far above the lightest a pack may be for "epsilon_lpt" to prefer it, in mean pack loads.
    penalty : float
        What "penalty_lpt" adds to a pack's load for every replica of the expert it holds, in mean pack loads.
    """

    packer: str = "lpt"
    swap_rule: str | None = None
    swap_steps: int = 0
    rank_by_item: bool = False
    candidates: int = 2
    epsilon: float = 0.0
    penalty: float = 0.0


@dataclass(frozen=True)
class PipelineConfig:
    """One heuristic: groups to nodes, replication, replicas to GPUs.

    Parameters
    ----------
    groups : Stage
        Packing of expert groups on nodes.
    replication : str
        Key of :data:`eplb_gap.heuristics.programs.replication.REPLICATORS`.
    replicas : Stage
        Packing of replicas on the GPUs of a node.
    dtype : {"float32", "float64"}
        Type in which the program computes.
    fix_ups : int
        Most replicas per node that are moved after replication; see :func:`eplb_gap.heuristics.programs.replication.fix_up`.
    """

    groups: Stage = Stage()
    replication: str = "adams"
    replicas: Stage = Stage()
    dtype: Literal["float32", "float64"] = "float32"
    fix_ups: int = 0


Effort = Literal["lpt", "fast", "split", "counts"]


@dataclass(frozen=True)
class FastConfig:
    """A setting of the project's own planner, :func:`eplb_gap.heuristics.planner.fast.plan`.

    Parameters
    ----------
    effort : {"lpt", "fast", "split", "counts"}
        See :mod:`eplb_gap.heuristics.planner.fast`.
    tolerance : float or None
        Relative distance to the layer's lower bound at which the search stops; None for the effort's own.
    """

    effort: Effort = "fast"
    tolerance: float | None = None


Config = FastConfig | PipelineConfig
