"""One flat problem: a layer, or a node of a layer, without nodes or groups of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from problem.deployment import Deployment, Duplicates
from problem.errors import InputError
from problem.loads import as_loads


def _as_tuple(loads: Sequence[int] | np.ndarray) -> tuple[int, ...]:
    return tuple(as_loads(loads, "loads", 1).tolist())


@dataclass(frozen=True)
class Instance:
    """Loads of E experts to be put on G GPUs with S slots, every GPU alike.

    Parameters
    ----------
    loads : tuple of int
        Tokens per logical expert, non-negative.
    num_slots, num_gpus : int
        S and G; G divides S and ``S >= E``.
    duplicates : {"allowed", "forbidden"}
        Whether two replicas of one expert may share a GPU.

    Raises
    ------
    InputError
        As :class:`problem.Deployment` does, and for loads that are no non-negative integers.
    """

    loads: tuple[int, ...]
    num_slots: int
    num_gpus: int
    duplicates: Duplicates = "allowed"

    def __post_init__(self) -> None:
        for expert, load in enumerate(self.loads):
            if not isinstance(load, int) or isinstance(load, bool) or load < 0:
                raise InputError(f"loads[{expert}] is {load!r}; a non-negative integer is needed")
        Deployment(len(self.loads), self.num_slots, self.num_gpus, duplicates=self.duplicates)

    @classmethod
    def of_layer(cls, loads: Sequence[int] | np.ndarray, deployment: Deployment) -> Instance:
        """Return the flat (global) problem of one layer."""
        return cls(_as_tuple(loads), deployment.num_slots, deployment.num_gpus, deployment.duplicates)

    @classmethod
    def of_node(cls, loads: Sequence[int] | np.ndarray, deployment: Deployment) -> Instance:
        """Return the flat problem of one node, given the loads of the experts it hosts."""
        return cls(_as_tuple(loads), deployment.slots_per_node, deployment.gpus_per_node, deployment.duplicates)

    @property
    def num_experts(self) -> int:
        """Logical experts E."""
        return len(self.loads)

    @property
    def slots_per_gpu(self) -> int:
        """Slots k of one GPU."""
        return self.num_slots // self.num_gpus

    @cached_property
    def total(self) -> int:
        """Sum of the loads, W."""
        return sum(self.loads)

    @property
    def mean(self) -> Fraction:
        """Mean GPU load ``W / G``: the perfect balance."""
        return Fraction(self.total, self.num_gpus)

    @property
    def max_count(self) -> int:
        """Most replicas one expert can have: all spare slots, or one per GPU when duplicates are forbidden."""
        spare = self.num_slots - self.num_experts + 1
        return spare if self.duplicates == "allowed" else min(spare, self.num_gpus)

    @cached_property
    def digest(self) -> str:
        """Stable hash of the whole instance, 16 hexadecimal digits."""
        text = f"{self.num_slots} {self.num_gpus} {self.duplicates} {' '.join(map(str, self.loads))}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def makespan(self, slots: Sequence[int] | np.ndarray) -> Fraction:
        """Return the exact largest GPU load of a map ``slots[slot] = expert`` that is known to be legal."""
        counts = [0] * self.num_experts
        for expert in slots:
            counts[expert] += 1
        k = self.slots_per_gpu
        return max(
            sum((Fraction(self.loads[e], counts[e]) for e in slots[start : start + k]), Fraction(0))
            for start in range(0, self.num_slots, k)
        )
