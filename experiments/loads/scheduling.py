"""Processing times of the classical benchmark of scheduling on identical machines: jobs are experts, machines are GPUs."""

from __future__ import annotations

import numpy as np

CLASSES = ("uniform", "nonuniform")


def processing_times(kind: str, jobs: int, largest: int, seed: int) -> np.ndarray:
    """Return synthetic integer processing times in random order, int64 [jobs], from 1 to ``largest``.

    Parameters
    ----------
    kind : str
        With ``[a, b] = [1, largest]``, "uniform": U[a, b]; "nonuniform": 98 % of the jobs, rounded up, U[.9 (b - a), b] and the
        others U[a, .2 (b - a)], with ends rounded to the integers within.
    jobs, largest, seed : int

    References
    ----------
    França, Gendreau, Laporte, Müller, "A composite heuristic for the identical parallel machine scheduling problem with minimum
    makespan objective", Computers & Operations Research 21 (1994), 205-210; Frangioni, Necciari, Scutellà, "A multi-exchange
    neighborhood for minimum makespan machine scheduling problems", Journal of Combinatorial Optimization 8 (2004), 195-220.

    Examples
    --------
    >>> processing_times("nonuniform", 50, 100, 0).min() < 20
    True
    """
    generator = np.random.default_rng(seed)
    if kind == "uniform":
        return generator.integers(1, largest, size=jobs, endpoint=True)
    spread, few = largest - 1, jobs // 50
    many = generator.integers(-(-9 * spread // 10), largest, size=jobs - few, endpoint=True)
    return generator.permutation(np.concatenate([many, generator.integers(1, spread // 5, size=few, endpoint=True)]))
