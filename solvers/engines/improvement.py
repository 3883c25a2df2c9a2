"""Rounds of annealing and exact-cover neighbourhood search on one map: what finds maps at three and four slots per GPU."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from eplb_gap.heuristics.kernels.annealing import LEVELS, anneal
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.engines.neighbourhood import improve

ANNEAL_STEPS = 1000  # per slot
MAX_STEPS = 300_000  # under .1 s, so that Ctrl-C is seen soon
NEIGHBOURHOOD = {3: 13, 4: 8}
"""GPUs of a neighbourhood by slots per GPU; other instances are annealed only."""
WORK = 2_500_000  # about .1 s


class Improvement:
    """The best map, and rounds of annealing and neighbourhood search that improve it."""

    def __init__(self, instance: Instance, slots: tuple[int, ...], seed: int) -> None:
        self.instance = instance
        self.best = slots
        self.upper = instance.makespan(slots)
        self._loads = np.array(instance.loads, dtype=np.float64)
        self._slots = np.array(slots, dtype=np.int64)
        self._seeds = np.random.default_rng(seed)
        self._rounds = 0

    def round(self, lower: Fraction) -> bool:
        """Anneal and re-partition once; return whether the map is better than before."""
        instance, slots = self.instance, self._slots
        common = (instance.num_gpus, instance.max_count, instance.duplicates == "forbidden", float(lower))
        level = LEVELS[self._rounds % len(LEVELS)]
        steps = min(ANNEAL_STEPS * slots.size, MAX_STEPS)
        anneal(self._loads, slots, *common, level, steps, int(self._seeds.integers(2**31)))
        if instance.slots_per_gpu in NEIGHBOURHOOD:
            size = NEIGHBOURHOOD[instance.slots_per_gpu] + int(self._seeds.integers(-2, 3))
            improve(self._loads, slots, *common, size, WORK, int(self._seeds.integers(2**31)))
        self._rounds += 1
        value = instance.makespan(slots)
        if value >= self.upper:
            return False
        self.best, self.upper = tuple(slots.tolist()), value
        return True
