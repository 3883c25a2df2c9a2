"""What a solve returns: placement and proof layer by layer, its progress reports, and its interruption."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from eplb_gap.problem.bounds.bounds import Bound
from eplb_gap.problem.metrics import optimality_gap
from eplb_gap.problem.placement import Placement


@dataclass(frozen=True)
class Progress:
    """State of a solve, handed to its ``progress`` callable after every improvement.

    Parameters
    ----------
    elapsed : float
        Wall seconds since the call.
    layer, num_layers : int
        Layer at work and how many there are.
    upper, lower : float
        Makespan (infinite before the first map) and bound of that layer, in tokens.
    gap : float
    engine : str
    """

    elapsed: float
    layer: int
    num_layers: int
    upper: float
    lower: float
    gap: float
    engine: str


@dataclass(frozen=True)
class Solution:
    """Placement and proof, layer by layer.

    Parameters
    ----------
    placement : Placement
        Verified.
    upper : list of Fraction
        Exact makespans, recomputed from the placement.
    bounds : list of Bound
        What is proven, and how.
    method : str
    seconds : float
        Wall time of the call.

    Examples
    --------
    >>> from eplb_gap import Deployment, Solution, solve
    >>> found = solve([[7, 4, 3]], Deployment(3, 4, 2))
    >>> isinstance(found, Solution), found.status, found.gap
    (True, ['optimal'], [0.0])
    >>> found.placement.counts().sum().item()
    4
    """

    placement: Placement
    upper: list[Fraction]
    bounds: list[Bound]
    method: str
    seconds: float

    @property
    def lower(self) -> list[Fraction]:
        """Proven lower bound of every layer."""
        return [bound.value for bound in self.bounds]

    @property
    def status(self) -> list[Literal["optimal", "bounded"]]:
        """ "optimal" where upper equals lower as fractions, else "bounded"."""
        return ["optimal" if up == low else "bounded" for up, low in zip(self.upper, self.lower, strict=True)]

    @property
    def proof(self) -> list[str]:
        """How the lower bound is proven, with what it rests on: an exhausted search, the word of a solver ("claim of ...")."""
        return [_described(bound) for bound in self.bounds]

    @property
    def gap(self) -> list[float]:
        """Optimality gap ``upper / lower - 1`` of every layer."""
        return [optimality_gap(up, low) for up, low in zip(self.upper, self.lower, strict=True)]


def _described(bound: Bound) -> str:
    if bound.kind == "claim":
        return f"claim of {bound.witness['solver']}"
    nodes = bound.witness["nodes"] if bound.kind == "hierarchical" else []
    trusted = {node["witness"]["solver"] for node in nodes if node["kind"] == "claim"}
    parts = [bound.kind]
    parts += ["exhausted search"] if any(node["kind"] == "exhausted search" for node in nodes) else []
    parts += [f"claim of {' and '.join(sorted(map(str, trusted)))}"] if trusted else []
    return ", ".join(parts)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during :func:`solve`; ``solution`` holds the best placement and bounds so far.

    Examples
    --------
    >>> from eplb_gap import Deployment, Interrupted, solve
    >>> def ctrl_c(progress):
    ...     raise KeyboardInterrupt
    >>> try:
    ...     solution = solve([[9, 8, 7, 5, 3]], Deployment(5, 8, 4), method="oracle", progress=ctrl_c)
    ... except Interrupted as stop:
    ...     solution = stop.solution
    >>> solution.placement.num_slots
    8
    """

    def __init__(self, solution: Solution) -> None:
        super().__init__("solve was interrupted; the solution so far is attached")
        self.solution = solution
