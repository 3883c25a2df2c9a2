"""The best sequence of maps within a number of moves from each to the next, by enumeration of all maps: small layers alone."""

from __future__ import annotations

import itertools
from fractions import Fraction
from functools import cache

import numpy as np

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import legal_layers

UNIT = 12
"""Counts up to four divide it."""


def all_maps(deployment: Deployment) -> list[tuple[int, ...]]:
    """Return all legal maps of a deployment, replicas ascending on every GPU."""
    k = deployment.slots_per_gpu
    contents = list(itertools.combinations_with_replacement(range(deployment.num_experts), k))
    found = [
        tuple(itertools.chain(*chosen))
        for chosen in itertools.product(contents, repeat=deployment.num_gpus)
        if set(itertools.chain(*chosen)) == set(range(deployment.num_experts))
    ]
    legal = legal_layers(Placement(np.array(found), deployment.num_experts), deployment)
    return [row for row, good in zip(found, legal, strict=True) if good]


def least_served(steps: np.ndarray, deployment: Deployment, starts: list[int], most: int | None) -> Fraction:
    """Return the least sum of makespans of one layer over all steps.

    Parameters
    ----------
    steps : ndarray
        int64 [steps, experts].
    deployment : Deployment
    starts : list of int
        Steps at which the map may change, from 0.
    most : int or None
        Replicas that may move at a change; any number if None. The first map is free.
    """
    sizes, moves = _tables(deployment)
    # Makespans in parts of UNIT, which every possible count divides.
    costs = np.einsum("mge,te->mgt", sizes, steps).max(axis=1)
    best = np.zeros(len(sizes), dtype=np.int64)
    for number, (start, end) in enumerate(itertools.pairwise([*starts, len(steps)])):
        if number:
            reach = np.where(moves <= (deployment.num_slots if most is None else most), best[:, None], np.iinfo(np.int64).max)
            best = reach.min(axis=0)
        best = best + costs[:, start:end].sum(axis=1)
    return Fraction(int(best.min()), UNIT)


@cache
def _tables(deployment: Deployment) -> tuple[np.ndarray, np.ndarray]:
    """Return the parts of UNIT of every expert's load on every GPU, int64 [maps, gpus, experts], and moves, int64 [old, new]."""
    maps = np.array(all_maps(deployment))
    home = np.arange(deployment.num_slots) // deployment.slots_per_gpu
    held = np.zeros((len(maps), deployment.num_gpus, deployment.num_experts), dtype=np.int64)
    for slot, gpu in enumerate(home):
        held[np.arange(len(maps)), gpu, maps[:, slot]] += 1
    shares = held * (UNIT // held.sum(axis=1, keepdims=True))
    return shares, deployment.num_slots - np.minimum(held[:, None], held[None]).sum(axis=(2, 3))
