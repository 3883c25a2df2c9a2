"""Two balancers held against each other layer by layer, and their times side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from eplb_gap.experiments.hosts.originals import Loaded, as_map
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
        Layers of which the original returned no legal map, or none at all; they count nowhere else.
    """

    layers: int = 0
    equal: int = 0
    counts: int = 0
    worst: float = 0.0
    tied: int = 0
    tied_equal: int = 0
    tied_worst: float = 0.0
    failed: int = 0


def compare(original: Loaded, ours: Ours, asked: Iterable[Case]) -> Tally:
    """Run both on every case and hold their maps against each other.

    Parameters
    ----------
    original : callable
        Of :attr:`eplb_gap.experiments.hosts.originals.Original.load`.
    ours : callable
        ``ours(case)`` returns a placement, which must be legal.
    asked : iterable of Case
    """
    tally = Tally()
    for case in asked:
        try:
            theirs = as_map(original(case)(), case)
        except Exception:  # of the package's own, whatever it is: layer by layer then, to know which
            for layer in range(len(case.totals)):
                _add_or_fail(tally, original, ours, case.layer(layer))
        else:
            _add(tally, theirs, ours(case), case)
    return tally


def _add_or_fail(tally: Tally, original: Loaded, ours: Ours, case: Case) -> None:
    try:
        theirs = as_map(original(case)(), case)
    except Exception:
        tally.failed += len(case.totals)
    else:
        _add(tally, theirs, ours(case), case)


def _add(tally: Tally, theirs: Placement, ours: Placement, case: Case) -> None:
    """Add the layers of two maps of a case."""
    deployment = replace(case.deployment, duplicates="allowed")
    usable = np.flatnonzero(legal_layers(theirs, deployment))
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
