"""What a solve returns: placement and proof layer by layer, its progress reports, and its interruption."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np

from eplb_gap.problem import certificate
from eplb_gap.problem.bounds.bounds import Bound
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.digest import array_sha256
from eplb_gap.problem.metrics import optimality_gap
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.proofs import described


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
        Wall time of the call; 0 where it was read from a file.
    loads : ndarray
        What was solved, int64 [layers, experts]; the history [windows, layers, experts] of a sample average.
    deployment : Deployment

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
    loads: np.ndarray = field(repr=False)
    deployment: Deployment

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
        return [described(bound) for bound in self.bounds]

    @property
    def gap(self) -> list[float]:
        """Optimality gap ``upper / lower - 1`` of every layer."""
        return [optimality_gap(up, low) for up, low in zip(self.upper, self.lower, strict=True)]

    @property
    def loads_sha256(self) -> str:
        """The sha256 of the loads, as certificates name it (:func:`eplb_gap.problem.digest.array_sha256`)."""
        return array_sha256(self.loads)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the certificate of this solution, as a whole or not at all; see :mod:`eplb_gap.problem.certificate`.

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        certificate.write(path, self.loads, self.deployment, self.placement, self.bounds)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Solution:
        """Read a certificate back and judge all of it anew.

        Parameters
        ----------
        path : path
            A file that :meth:`save` or ``eplb-gap solve --certificate`` wrote.

        Returns
        -------
        Solution
            Its method is "certificate".

        Raises
        ------
        InputError, PlacementError, CertificateError
            As :func:`eplb_gap.problem.certificate.check`.
        """
        read = certificate.read(path)
        verdict = certificate.judge(read)
        return cls(read.placement, verdict.upper, read.bounds, "certificate", 0.0, read.loads, read.deployment)


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
