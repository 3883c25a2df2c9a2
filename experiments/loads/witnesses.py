"""Small named instances whose bounds rest on one kind of witness each: every kind that a certificate can hold has some."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eplb_gap.experiments.loads.synthetic import family_loads
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.proofs import PROOFS

TOTAL = 10_000
SECONDS = 20.0
KINDS = tuple(proof.kind for proof in PROOFS.values() if proof.value is not None or proof.kind == "hierarchical")
"""Kinds of witnesses that a certificate can hold; no claims, and no bounds on a history's average."""


@dataclass(frozen=True)
class Example:
    """An instance on which a method ends with a kind of witness.

    Parameters
    ----------
    kind : str
        Of :data:`KINDS`.
    loads : ndarray
        int64 [1, experts].
    deployment : Deployment
    method : str
        Of :data:`eplb_gap.solvers.METHODS`: the engine that looks for such witnesses, or "auto".
    """

    kind: str
    loads: np.ndarray
    deployment: Deployment
    method: str


def name_of(kind: str) -> str:
    """Return the name of the example of a kind.

    Examples
    --------
    >>> name_of("pairing dual")
    'witness-pairing-dual'
    """
    return f"witness-{kind.replace(' ', '-')}"


def _drawn(kind: str, shape: tuple[int, ...], family: str, seed: int, method: str = "auto") -> Example:
    experts, slots, gpus, nodes, groups = shape if len(shape) == 5 else (*shape, 1, 1)
    deployment = Deployment(experts, slots, gpus, nodes, groups)
    return Example(kind, family_loads(family, deployment.num_experts, TOTAL, seed)[None], deployment, method)


EXAMPLES = (
    _drawn("mean", (4, 4, 2), "flat", 300),
    _drawn("mean", (10, 16, 4), "flat", 300, "bounds"),
    Example("capacity", np.full((1, 10), 10, dtype=np.int64), Deployment(10, slots_per_gpu=[8, 1, 1]), "bounds"),
    _drawn("apportionment", (6, 8, 8), "ln1.0", 300),
    _drawn("slot counting", (24, 32, 16), "zipf1.2", 301),
    _drawn("slot counting", (4, 4, 2), "flat", 301),
    _drawn("slot counting", (16, 24, 12), "hot", 300, "bounds"),
    _drawn("forced counts", (4, 4, 2), "ln.6", 300),
    _drawn("forced counts", (6, 8, 4), "ln.6", 301, "bounds"),
    _drawn("replayed search", (12, 16, 4), "ln1.0", 300),
    _drawn("replayed search", (8, 12, 4), "ln1.0", 300),
    _drawn("pairing dual", (12, 16, 8), "ln.6", 301, "pairing"),
    _drawn("pairing dual", (24, 32, 16), "zipf1.2", 300, "pairing"),
    _drawn("pairing dual", (256, 288, 144), "ln1.0", 300),
    _drawn("pairing tree", (24, 32, 16), "zipf.8", 300, "pairing"),
    _drawn("pairing tree", (32, 48, 24), "zipf1.2", 301, "pairing"),
    _drawn("pairing tree", (64, 96, 48), "ln1.0", 300),
    _drawn("pattern dual", (12, 18, 6), "zipf1.2", 300, "patterns"),
    _drawn("pattern dual", (12, 18, 6), "ln1.0", 301, "patterns"),
    _drawn("hierarchical", (12, 18, 6, 2, 4), "ln1.0", 300),
)
"""Several of a kind where engines that get better may close the first by another kind."""
