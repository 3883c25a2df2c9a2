"""One flat problem: a layer, or a node of a layer, without nodes or groups of its own."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np

from eplb_gap.problem.deployment import Deployment, Duplicates
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.loads import as_loads


def _as_tuple(loads: Sequence[int] | np.ndarray) -> tuple[int, ...]:
    return tuple(as_loads(loads, "loads", 1).tolist())


@dataclass(frozen=True)
class Instance:
    """Loads of E experts to be put on G GPUs with S slots.

    Parameters
    ----------
    loads : tuple of int
        Tokens per logical expert, non-negative.
    num_slots, num_gpus : int
        S and G; ``S >= E``.
    duplicates : {"allowed", "forbidden"}
        Whether two replicas of one expert may share a GPU.
    slots_by_gpu : tuple of int [gpus], optional
        Slots of every GPU; by default ``S / G`` each.

    Raises
    ------
    InputError
        As :class:`eplb_gap.problem.Deployment` does, and for loads that are no non-negative integers.
    """

    loads: tuple[int, ...]
    num_slots: int
    num_gpus: int
    duplicates: Duplicates = "allowed"
    slots_by_gpu: tuple[int, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for expert, load in enumerate(self.loads):
            if not isinstance(load, int) or isinstance(load, bool) or load < 0:
                raise InputError(f"loads[{expert}] is {load!r}; a non-negative integer is needed")
        shape = len(self.loads), self.num_slots, self.num_gpus
        if self.slots_by_gpu:
            Deployment(*shape, duplicates=self.duplicates, slots_per_gpu=self.slots_by_gpu)
        else:
            regular = Deployment(*shape, duplicates=self.duplicates)
            object.__setattr__(self, "slots_by_gpu", regular.slots_by_gpu)

    @classmethod
    def of_layer(cls, loads: Sequence[int] | np.ndarray, deployment: Deployment) -> Instance:
        """Return the flat (global) problem of one layer on the GPUs that are alive."""
        live = deployment.live
        return cls(_as_tuple(loads), live.num_slots, live.num_gpus, live.duplicates, live.slots_by_gpu)

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
        """Slots k of one GPU; an InputError where the GPUs have unequal slots, which whoever asks can't work with."""
        if not self.is_even:
            raise InputError(
                f"the GPUs have {min(self.slots_by_gpu)} to {max(self.slots_by_gpu)} slots; this needs equally many on each"
            )
        return self.slots_by_gpu[0]

    @property
    def is_even(self) -> bool:
        """Whether all GPUs have equally many slots."""
        return len(set(self.slots_by_gpu)) == 1

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First slot of every GPU and, last, the number of slots; int [gpus + 1]."""
        return tuple(itertools.accumulate(self.slots_by_gpu, initial=0))

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
        if not self.is_even:
            text += f" on {' '.join(map(str, self.slots_by_gpu))}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def makespan(self, slots: Sequence[int] | np.ndarray) -> Fraction:
        """Return the exact largest GPU load of a map ``slots[slot] = expert`` that is known to be legal."""
        counts = [0] * self.num_experts
        for expert in slots:
            counts[expert] += 1
        return max(
            sum((Fraction(self.loads[e], counts[e]) for e in slots[start:end]), Fraction(0))
            for start, end in itertools.pairwise(self.starts)
        )
