"""The oracle: exhaustive search over counts and packings, independent of every bound, model and solver.

It shares nothing with the other engines but the instance, so that agreement with it is evidence. Its only cut is the
best makespan found so far; symmetric GPUs and the identical replicas of an expert are met once. The optimum that it finds is
handed over with the log of a search of the kernel's own, so that nobody has to believe this one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

from eplb_gap.problem.bounds.bounds import Bound, reachable
from eplb_gap.problem.bounds.exhausted import record, replay_witness
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.compact.counts import count_ranges, denominator
from eplb_gap.solvers.engine import Engine, Finding, Incumbent, Limits

MAX_SLOTS = 12


def best_map(instance: Instance) -> tuple[int, ...]:
    """Return an optimal map ``slots[slot] = expert``, GPU after GPU.

    Parameters
    ----------
    instance : Instance
        With at most 12 slots.

    Raises
    ------
    InputError
        If the instance has more slots.
    """
    enumeration = _Enumeration(instance)
    for counts in enumeration.count_vectors():
        enumeration.pack(counts)
    return enumeration.map()


def best_map_for_counts(instance: Instance, counts: Sequence[int]) -> Fraction:
    """Return the smallest makespan of any packing of given replica counts.

    Parameters
    ----------
    instance : Instance
        With at most 12 slots.
    counts : sequence of int [experts]
        Positive, with the slots as their sum, none above ``instance.max_count``.

    Raises
    ------
    InputError
        If the instance has more slots or the counts are not as described.
    """
    if len(counts) != instance.num_experts or sum(counts) != instance.num_slots:
        raise InputError(
            f"counts has {len(counts)} entries with sum {sum(counts)}; "
            f"{instance.num_experts} with sum num_slots = {instance.num_slots} are needed"
        )
    if not all(1 <= count <= instance.max_count for count in counts):
        raise InputError(f"counts is {list(counts)}; every count from 1 to {instance.max_count} is allowed")
    enumeration = _Enumeration(instance)
    enumeration.pack(tuple(counts))
    return instance.makespan(enumeration.map())


def search(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield the best map, then its makespan as a bound if the search was exhausted before the deadline.

    Raises
    ------
    InputError
        If the instance has more than 12 slots.
    """
    enumeration = _Enumeration(instance)
    exhausted = True
    vectors = 0
    for counts in enumeration.count_vectors():
        if limits.seconds_left <= 0:
            exhausted = False
            break
        enumeration.pack(counts)
        vectors += 1
    if enumeration.best is None:
        return
    slots = enumeration.map()
    yield slots
    if exhausted:
        replayed = _replayable(instance, instance.makespan(slots)) if instance.is_even else None
        visited = {"count_vectors": vectors, "search_nodes": enumeration.nodes}
        yield replayed or Bound(instance.makespan(slots), "exhausted search", visited)


def _replayable(instance: Instance, optimum: Fraction) -> Bound | None:
    """Return the optimum as a bound whose check searches anew, where that is within the limits of such a search."""
    multiple = denominator(count_ranges(instance, optimum))
    below = (optimum * multiple - 1) / multiple
    try:
        log = record(instance, below) if below >= 0 else None
    except InputError:
        return None
    if log is None or reachable(instance, below, above=True) != optimum:
        return None
    return Bound(optimum, "replayed search", replay_witness(below, log))


class _Enumeration:
    """Depth-first search over packings that keeps the best of all count vectors it is given."""

    def __init__(self, instance: Instance) -> None:
        if instance.num_slots > MAX_SLOTS:
            raise InputError(f"num_slots is {instance.num_slots}; the oracle enumerates at most {MAX_SLOTS} slots")
        self.instance = instance
        self.scale = math.lcm(*range(1, instance.max_count + 1))
        self.best: int | None = None
        self.best_packing: list[tuple[int, int]] = []
        self.nodes = 0

    def count_vectors(self) -> list[tuple[int, ...]]:
        """Return all legal count vectors, those with the smallest largest replica first: good maps cut early."""
        loads, most = self.instance.loads, self.instance.max_count

        def compositions(experts: int, slots: int) -> Iterator[tuple[int, ...]]:
            if experts == 0:
                yield ()
                return
            for count in range(max(1, slots - most * (experts - 1)), min(most, slots - experts + 1) + 1):
                for rest in compositions(experts - 1, slots - count):
                    yield (count, *rest)

        vectors = compositions(len(loads), self.instance.num_slots)
        return sorted(vectors, key=lambda counts: max(w * self.scale // c for w, c in zip(loads, counts, strict=True)))

    def pack(self, counts: tuple[int, ...]) -> None:
        """Search all packings of the replicas for one that beats the best makespan."""
        instance = self.instance
        # Multiples of 1/scale: the division is exact for every possible count.
        size = [w * self.scale // c for w, c in zip(instance.loads, counts, strict=True)]
        order = sorted(range(instance.num_experts), key=lambda e: -size[e])
        replicas = [expert for expert in order for _ in range(counts[expert])]
        loads, free = [0] * instance.num_gpus, list(instance.slots_by_gpu)
        chosen = [0] * len(replicas)
        apart = instance.duplicates == "forbidden"

        def place(position: int) -> None:
            self.nodes += 1
            if position == len(replicas):
                self.best = max(loads)
                self.best_packing = list(zip(chosen, replicas, strict=True))
                return
            expert = replicas[position]
            # The replicas of an expert are identical: they go to GPUs in ascending order, strictly where no GPU may hold two.
            again = position > 0 and replicas[position - 1] == expert
            first = chosen[position - 1] + apart if again else 0
            met = set()
            # Emptiest first finds good packings early; the sort is stable, so of symmetric GPUs the lowest comes first.
            for gpu in sorted(range(first, instance.num_gpus), key=loads.__getitem__):
                state = (loads[gpu], free[gpu])
                if free[gpu] == 0 or state in met:
                    continue
                if self.best is not None and loads[gpu] + size[expert] >= self.best:
                    break
                met.add(state)
                loads[gpu] += size[expert]
                free[gpu] -= 1
                chosen[position] = gpu
                place(position + 1)
                loads[gpu] -= size[expert]
                free[gpu] += 1

        place(0)

    def map(self) -> tuple[int, ...]:
        """Return the best packing as a map, GPU after GPU."""
        return tuple(expert for _, expert in sorted(self.best_packing))


ENGINE = Engine("oracle", search, unequal=True, swept=False)
