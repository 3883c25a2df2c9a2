"""The default engine: which method is used follows from the shape of the instance."""

from __future__ import annotations

from collections.abc import Iterator

from problem.instance import Instance
from solvers import cpsat, oracle, pairing, patterns, splitting
from solvers.engine import Finding, Incumbent, Limits

MAX_ENUMERATED_SLOTS = 9
MAX_COMPACT_SLOTS = 24  # above this the compact model's bound stays at the mean and its search adds nothing


def search(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Return the findings of the engine for this regime.

    ==================  ==================================================================
    up to 9 slots       brute force: milliseconds
    up to 24 slots      CP-SAT on the assignment model
    2 slots per GPU     pairing: the pairing structure is binding
    3 or 4 per GPU      patterns: annealing, neighbourhood search, pattern LP bound
    otherwise           splitting: the mean is the bound, the map is what is looked for
    ==================  ==================================================================

    With one slot per GPU the start is optimal already.
    """
    if instance.slots_per_gpu == 1:
        return iter(())
    if instance.num_slots <= MAX_ENUMERATED_SLOTS:
        return oracle.search(instance, incumbent, limits)
    if instance.num_slots <= MAX_COMPACT_SLOTS:
        return cpsat.search(instance, incumbent, limits)
    if instance.slots_per_gpu == 2:
        return pairing.search(instance, incumbent, limits)
    if instance.slots_per_gpu <= 4:
        return patterns.search(instance, incumbent, limits)
    return splitting.search(instance, incumbent, limits)


def search_nothing(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield nothing: the closed-form bounds and the first map that every solve starts from are the answer."""
    return iter(())
