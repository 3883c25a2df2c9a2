"""Proven answers: exact models, bounds and the engines that find and certify optimal placements."""

from eplb_gap.solvers.engine import ContradictionError
from eplb_gap.solvers.facade import ENGINES, METHODS, solve
from eplb_gap.solvers.solution import Interrupted, Progress, Solution

__all__ = ["ENGINES", "METHODS", "ContradictionError", "Interrupted", "Progress", "Solution", "solve"]
