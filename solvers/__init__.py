"""Proven answers: exact models, bounds and the engines that find and certify optimal placements."""

from solvers.engine import ContradictionError
from solvers.facade import METHODS, solve
from solvers.solution import Interrupted, Progress, Solution

__all__ = ["METHODS", "ContradictionError", "Interrupted", "Progress", "Solution", "solve"]
