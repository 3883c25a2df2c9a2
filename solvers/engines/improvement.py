"""Rounds of annealing and exact-cover neighbourhood search on one map: what finds maps at three and four slots per GPU.

Rounds keep the counts of the hottest experts: to change one moves every GPU that holds it. A long annealing from far above
the best makespan chooses them anew. With hot loads most such starts end worse, some far better; so whenever rounds have gained
nothing for long, the search goes on from a fresh start and from the best map by turns.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from eplb_gap.heuristics.kernels.annealing import LEVELS, anneal
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engines.neighbourhood import improve

ANNEAL_STEPS = 1000  # per slot
MAX_STEPS = 300_000  # under .1 s, so that Ctrl-C is seen soon
NEIGHBOURHOOD = {3: 13, 4: 8}
"""GPUs of a neighbourhood by slots per GPU; other instances are annealed only."""
FRESH_STEPS = 40_000  # per slot
MAX_FRESH_STEPS = 4_000_000  # some .3 s
STALLED = 15
"""Rounds without gain after which the search goes on from another map."""
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
        self._rounds = self._stalled = 0
        self._value = self.upper  # of the map that rounds work on
        self._fresh = False  # whether that map came from a fresh start

    def round(self, lower: Fraction) -> bool:
        """Anneal and re-partition once; return whether the best map is better than before."""
        if self._stalled >= STALLED:
            self._turn(lower)
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
        self._stalled = 0 if value < self._value else self._stalled + 1
        self._value = value
        if value >= self.upper:
            return False
        self.best, self.upper = tuple(slots.tolist()), value
        return True

    def _turn(self, lower: Fraction) -> None:
        """Go on from a fresh start, or back from one to the best map."""
        instance = self.instance
        self._fresh, self._stalled = not self._fresh, 0
        if self._fresh:
            self._slots = np.array(greedy_map(instance, float("inf")), dtype=np.int64)
            distinct, steps = instance.duplicates == "forbidden", min(FRESH_STEPS * self._slots.size, MAX_FRESH_STEPS)
            shape = instance.num_gpus, instance.max_count, distinct
            anneal(self._loads, self._slots, *shape, float(lower), 0.0, steps, int(self._seeds.integers(2**31)))
        else:
            self._slots = np.array(self.best, dtype=np.int64)
        self._value = instance.makespan(self._slots)
