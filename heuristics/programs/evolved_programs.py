"""Published programs of evolutionary searches, written anew from their descriptions; most are configurations of the pipeline.

Like the seed of these searches (:mod:`eplb_gap.heuristics.programs.seed_programs`) they plan on one window of loads. All but
OpenEvolve, ShinkaEvolve and GEPA know no nodes.
"""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.config import PipelineConfig, Stage
from eplb_gap.heuristics.methods import GLOBAL, Heuristic, by_name, from_config, global_policy_only, run_config
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement

OPENEVOLVE = PipelineConfig(groups=Stage("snake"), replicas=Stage("snake"))
SHINKAEVOLVE = PipelineConfig(groups=Stage("thue_morse"), replication="adams_top_k", replicas=Stage("thue_morse"))
GEPA = PipelineConfig(groups=Stage("round_lpt"), replication="hamilton_or_threshold", replicas=Stage("round_lpt"))
LEVI = PipelineConfig(replicas=Stage("snake"), dtype="float64")
ADAEVOLVE = PipelineConfig(replication="threshold", replicas=Stage("heap_lpt"))
SPREAD_REPLICA = PipelineConfig(replicas=Stage("spread_lpt", "nearest", 1))


def gepa(weight: np.ndarray, deployment: Deployment) -> Placement:
    """GEPA: plan globally; where groups divide over nodes, also plan hierarchically and keep the better plan.

    Better is the smaller sum over layers of the fullest GPU's load; the hierarchical plan wins ties.

    Raises
    ------
    InputError
        If the global plan is better but the deployment is hierarchical: its map would be illegal there.
    """
    plan = run_config(GEPA, weight, deployment.as_global())
    if deployment.policy == "hierarchical":
        by_node = run_config(GEPA, weight, deployment)
        if _cost(plan, weight, deployment) < _cost(by_node, weight, deployment):
            raise InputError(global_policy_only("gepa"))
        plan = by_node
    return plan


def _cost(placement: Placement, weight: np.ndarray, deployment: Deployment) -> float:
    sizes = np.take_along_axis(weight / placement.counts(), placement.phy2log, axis=1)
    return float(sizes.reshape(len(sizes), deployment.num_gpus, -1).sum(axis=2).max(axis=1).sum())


EVOLVED_PROGRAMS = by_name(
    (
        Heuristic("openevolve", from_config(OPENEVOLVE)),
        Heuristic("shinkaevolve", from_config(SHINKAEVOLVE)),
        Heuristic("gepa", gepa, by_loads=frozenset({"hierarchical"})),
        Heuristic("levi", from_config(LEVI), GLOBAL),
        Heuristic("adaevolve", from_config(ADAEVOLVE), GLOBAL),
        Heuristic("spread-replica", from_config(SPREAD_REPLICA), GLOBAL),
    )
)
"""Heuristics by name; ``spread-replica`` is the best program of a later run of the seed's search."""
