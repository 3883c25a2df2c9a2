"""An oracle that knows nothing of bounds: every map of a few slots, and its makespan in fractions."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from eplb_gap.problem import Instance

SHAPES: list[tuple[int, int, int, Any]] = [
    (1, 4, 2, "allowed"),
    (2, 4, 2, "allowed"),
    (2, 4, 2, "forbidden"),
    (2, 6, 2, "allowed"),
    (2, 6, 3, "allowed"),
    (3, 3, 1, "forbidden"),
    (3, 4, 2, "allowed"),
    (3, 4, 2, "forbidden"),
    (3, 5, 5, "allowed"),
    (3, 6, 2, "allowed"),
    (3, 6, 2, "forbidden"),
    (3, 6, 3, "allowed"),
    (3, 6, 3, "forbidden"),
    (4, 6, 2, "allowed"),
    (4, 6, 2, "forbidden"),
    (4, 6, 3, "allowed"),
    (4, 6, 3, "forbidden"),
    (5, 6, 6, "allowed"),
]


@functools.cache
def all_maps(experts: int, slots: int, gpus: int, duplicates: str) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Return every legal map as GPUs of experts, one of each set that differs by the order of slots or GPUs only."""
    k = slots // gpus
    found = set()
    for flat in itertools.product(range(experts), repeat=slots):
        if len(set(flat)) < experts:
            continue
        on_gpu = [tuple(sorted(flat[g * k : (g + 1) * k])) for g in range(gpus)]
        if duplicates == "allowed" or all(len(set(held)) == k for held in on_gpu):
            found.add(tuple(sorted(on_gpu)))
    return tuple(found)


def counts_of(on_gpu: tuple[tuple[int, ...], ...], experts: int) -> tuple[int, ...]:
    flat = [e for held in on_gpu for e in held]
    return tuple(flat.count(e) for e in range(experts))


def makespan(on_gpu: tuple[tuple[int, ...], ...], loads: Sequence[int]) -> Fraction:
    counts = counts_of(on_gpu, len(loads))
    return max(sum((Fraction(loads[e], counts[e]) for e in held), Fraction(0)) for held in on_gpu)


def maps_of(instance: Instance) -> tuple[tuple[tuple[int, ...], ...], ...]:
    return all_maps(instance.num_experts, instance.num_slots, instance.num_gpus, instance.duplicates)


def optimum(instance: Instance) -> Fraction:
    return min(makespan(on_gpu, instance.loads) for on_gpu in maps_of(instance))


def optimum_for(counts: Sequence[int], instance: Instance) -> Fraction:
    fitting = [m for m in maps_of(instance) if counts_of(m, instance.num_experts) == tuple(counts)]
    return min(makespan(on_gpu, instance.loads) for on_gpu in fitting)


def sizes_of(counts: Sequence[int], loads: Sequence[int]) -> list[Fraction]:
    return [Fraction(w, c) for w, c in zip(loads, counts, strict=True) for _ in range(c)]


@st.composite
def instances(draw: st.DrawFn, shapes: Sequence[tuple[int, int, int, Any]] = tuple(SHAPES)) -> Instance:
    experts, slots, gpus, duplicates = draw(st.sampled_from(shapes))
    load = st.one_of(st.integers(0, 12), st.integers(0, 1000))
    return Instance(tuple(draw(st.lists(load, min_size=experts, max_size=experts))), slots, gpus, duplicates)
