"""Two balancers held against each other layer by layer, and their times side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from eplb_gap.experiments.hosts.originals import Discards, Loaded, as_map
from eplb_gap.experiments.hosts.peer_cases import Case, tied
from eplb_gap.problem.dead_ranks import without_dead
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import legal_layers, makespans

Ours = Callable[[Case], Placement]
ROUNDS = 9
"""Turns of the timing."""


@dataclass
class Tally:
    """What came of a comparison, in layers.

    Parameters
    ----------
    layers : int
        In which no tie can decide anything.
    equal, counts : int
        Of these, with equal makespans; with equal replica counts.
    worst : float
        Largest relative difference of their makespans; positive where ours is larger.
    tied, tied_equal : int
        Layers that a tie can decide; of these, with equal makespans.
    tied_worst : float
    failed : int
        Layers of which the original returned no legal map, none at all, or one that its host discards; they count nowhere else.
    """

    layers: int = 0
    equal: int = 0
    counts: int = 0
    worst: float = 0.0
    tied: int = 0
    tied_equal: int = 0
    tied_worst: float = 0.0
    failed: int = 0


def compare(original: Loaded, ours: Ours, asked: Iterable[Case], discards: Discards | None = None) -> Tally:
    """Run both on every case and hold their maps against each other.

    Parameters
    ----------
    original : callable
        Of :attr:`eplb_gap.experiments.hosts.originals.Original.load`.
    ours : callable
        ``ours(case)`` returns a placement, which must be legal.
    asked : iterable of Case
    discards : callable, optional
        Of :attr:`eplb_gap.experiments.hosts.originals.Original.discards`.
    """
    tally = Tally()
    for case in asked:
        try:
            found = [(as_map(original(case)(), case), case)]
        except Exception:  # of the package's own, whatever it is: layer by layer then, to know which
            found = list(_layer_by_layer(original, case))
            tally.failed += len(case.totals) - len(found)
        for theirs, part in found:
            _add(tally, theirs, ours(part), part, discards)
    return tally


def _layer_by_layer(original: Loaded, case: Case) -> Iterator[tuple[Placement, Case]]:
    """Yield the layers of a case that the original plans alone, with its maps."""
    for layer in range(len(case.totals)):
        part = case.layer(layer)
        with suppress(Exception):
            yield as_map(original(part)(), part), part


def _add(tally: Tally, theirs: Placement, ours: Placement, case: Case, discards: Discards | None) -> None:
    """Add the layers of two maps of a case."""
    deployment = replace(case.deployment, duplicates="allowed")
    legal = legal_layers(theirs, deployment)
    usable = np.flatnonzero(legal if discards is None else legal & ~discards(theirs, case))
    tally.failed += len(case.totals) - len(usable)
    if not len(usable):
        return
    loads = case.totals[usable]
    left = [Placement(m.phy2log[usable], m.num_experts, m.ranks[usable]) for m in (theirs, ours)]
    counts = [without_dead(m, deployment).counts() for m in left]
    for row, a, b, their_counts, our_counts in zip(loads, *(makespans(m, loads, deployment) for m in left), *counts, strict=True):
        difference = 0.0 if a == b else float(b / a) - 1 if a else np.inf
        if tied(row, np.maximum(their_counts, our_counts), deployment):
            tally.tied += 1
            tally.tied_equal += a == b
            tally.tied_worst = max(tally.tied_worst, difference, key=abs)
        else:
            tally.layers += 1
            tally.equal += a == b
            tally.counts += bool((their_counts == our_counts).all())
            tally.worst = max(tally.worst, difference, key=abs)


def time_ratio(original: Loaded, ours: Ours, case: Case, rounds: int = ROUNDS) -> tuple[float, float]:
    """Return the median CPU seconds of a call of the original and of ours, in turns in this process, both called before.

    Parameters
    ----------
    original, ours, case
        As of :func:`compare`.
    rounds : int
    """
    call = original(case)
    calls: tuple[Callable[[], object], Callable[[], object]] = (call, lambda: ours(case))
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for run, found in zip(calls, seconds, strict=True):
            began = time.process_time()
            run()
            if turn:  # the first compiles
                found.append(time.process_time() - began)
    return median(seconds[0]), median(seconds[1])
