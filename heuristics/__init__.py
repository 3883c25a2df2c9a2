"""Fast answers: the stages of the balancers in use, their named configurations, and a drop-in interface."""

from eplb_gap.heuristics.registry import HEURISTICS, METHODS, rebalance

__all__ = ["HEURISTICS", "METHODS", "rebalance"]
